"""A finished folder to a repository on a Hugging Face hub."""

from pathlib import Path

from optical_scale.errors import ExportError


def require_token() -> None:
    """Say so before any work if nobody is logged in.

    Raises:
        ExportError: there is no token.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise ExportError(
            "push_to: no token for the hub; run `hf auth login`, or set HF_TOKEN to a token that may write"
        )


def push(folder: Path, repository: str, *, endpoint: str | None = None, token: str | None = None) -> str:
    """Upload all files of ``folder`` in one commit. A repository that does not exist is created, private.

    Args:
        folder: exported and proved.
        repository: ``owner/name``.
        endpoint: address of the hub; None takes HF_ENDPOINT or the public one.
        token: None takes the one of the login.

    Returns:
        The address of the repository.

    Raises:
        ExportError: the hub refused or was not reached; the folder stays.
    """
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=endpoint, token=token)
    try:
        url = str(hub.create_repo(repository, private=True, exist_ok=True))
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Export of {folder.name}")
    # The library lets errors of its transport through, whose classes differ between versions.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(
            f"push_to: {folder} is complete, but could not be uploaded to {repository}: {reason}; "
            f"repeat that part with `hf upload {repository} {folder}`"
        ) from error
    return url
