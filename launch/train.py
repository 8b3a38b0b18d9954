"""What the deepspeed launcher starts on every rank: deepspeed [--hostfile hosts] launch/train.py --config FILE."""

import argparse
import sys

from optical_scale.cli.main import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file with the fields of TrainConfig")
    parser.add_argument("--local_rank", help="passed by the launcher; the environment says the same")
    parser.add_argument("overrides", nargs="*", help="dotted overrides such as optimization.epochs=3")
    arguments = parser.parse_args()
    sys.exit(main(["train", arguments.config, *arguments.overrides]))
