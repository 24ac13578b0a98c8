"""Turn the Hugging Face folder of npc-1.9m into the OpenVINO folder that `spillway engine` reads.

    python export.py ../npc-1.9m/hf ../npc-1.9m/openvino

Needs optimum-intel and openvino-tokenizers, which the project itself never does. Weights stay fp16.
"""

import argparse
import shutil
import subprocess
from pathlib import Path

TAKEN_OVER = ("generation_config.json", "chat_template.jinja")
"""Files that the exporter rewrites with versions and defaults of its own; ours say all that is needed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder in the Hugging Face format")
    parser.add_argument("target", type=Path, help="folder to write")
    arguments = parser.parse_args()
    subprocess.run(
        ["optimum-cli", "export", "openvino", "--model", str(arguments.source), "--task", "text-generation-with-past",
         "--weight-format", "fp16", str(arguments.target)],
        check=True,
    )  # fmt: skip
    for name in TAKEN_OVER:
        shutil.copyfile(arguments.source / name, arguments.target / name)


if __name__ == "__main__":
    main()
