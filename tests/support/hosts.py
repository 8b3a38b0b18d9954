"""Two hosts on one machine: each has its own network, processes and name, and an sshd with fresh keys."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

TOOLS = ("ip", "unshare", "nsenter", "ssh", "ssh-keygen", "pdsh")
PORT = 2222


def why_not() -> str | None:
    """What this machine lacks for :class:`Hosts`, None if nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)}"
    if missing := [path for path in ("/usr/sbin/sshd", "/etc/ssh/ssh_config") if not Path(path).exists()]:
        return f"not installed: {', '.join(missing)}"
    name = f"os{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "network namespaces are forbidden here"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Hosts:
    """``node1`` and ``node2``, joined by one cable; nothing leaves the machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = [f"os{os.getpid()}a", f"os{os.getpid()}b"]
        self.inits: list[int] = []
        folder.mkdir()
        Path("/run/sshd").mkdir(exist_ok=True)
        for key in ("id", "host"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key)
        shutil.copy(folder / "id.pub", folder / "authorized")
        (folder / "sshd_config").write_text(
            f"Port {PORT}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nPidFile none\nUsePAM no\n"
            "StrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        (folder / "ssh_config").write_text(
            f"Host *\n  Port {PORT}\n  IdentityFile {folder}/id\n  StrictHostKeyChecking no\n"
            f"  UserKnownHostsFile {folder}/known\n  LogLevel ERROR\n  ConnectTimeout 5\n"
            "  ServerAliveInterval 5\n  ServerAliveCountMax 2\n"
        )
        (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node1\n10.77.0.2 node2\n")
        for name in self.names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        first, second = self.names
        _run("ip", "-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second)
        for number, name in enumerate(self.names, 1):
            _run("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
            _run("ip", "-n", name, "link", "set", "eth0", "up")
        self.inits = [self._boot(number) for number in (1, 2)]

    def _boot(self, number: int) -> int:
        """Start sshd as process 1 of a host; killing it ends every process there, as a power cut would."""
        script = (
            f"hostname node{number}; mount --bind {self.folder}/hosts /etc/hosts; "
            f"mount --bind {self.folder}/ssh_config /etc/ssh/ssh_config; "
            f"exec /usr/sbin/sshd -D -e -f {self.folder}/sshd_config"
        )
        spaces = ["unshare", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc"]
        command = ["ip", "netns", "exec", self.names[number - 1], *spaces, "--propagation", "private"]
        with (self.folder / f"sshd{number}.log").open("wb") as log:
            outer = subprocess.Popen([*command, "bash", "-c", script], stdout=log, stderr=log)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if children.exists() and (words := children.read_text().split()):
                return int(words[0])
            time.sleep(0.05)
        raise AssertionError((self.folder / f"sshd{number}.log").read_text())

    def command(self, number: int, *words: str | Path) -> list[str]:
        """``words`` as a command on a host."""
        inside = ["nsenter", "-t", str(self.inits[number - 1]), "-n", "-p", "-u", "-m", f"--wd={os.getcwd()}"]
        return [*inside, *map(str, words)]

    def kill(self, number: int) -> None:
        """Cut the power of a host."""
        os.kill(self.inits[number - 1], signal.SIGKILL)

    def boot(self, number: int) -> None:
        """Start a killed host again."""
        time.sleep(0.5)
        self.inits[number - 1] = self._boot(number)

    def close(self) -> None:
        """Remove both hosts."""
        for init in self.inits:
            if Path(f"/proc/{init}").exists():
                os.kill(init, signal.SIGKILL)
        time.sleep(0.3)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True)
