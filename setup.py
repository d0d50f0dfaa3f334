"""What pyproject.toml cannot say: the wheel carries the records of claims and trainings, which lie outside src/."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecords(build_py):
    """Copies ``results/claims`` and the facts of trainings to ``vestige/records``, where `records_root` finds them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # a checkout reads its own
        results = Path("results")
        for record in (*results.glob("claims/*.json"), *results.glob("runs/*/trained.json")):
            target = Path(self.build_lib, "vestige", "records", record.relative_to(results))
            self.mkpath(str(target.parent))
            self.copy_file(str(record), str(target))


setup(cmdclass={"build_py": WithRecords})
