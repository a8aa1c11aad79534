"""Verification of the prepared data before the runs of a submission."""

from __future__ import annotations

from mlperf.data.criteo.days import TRAINING_SPLITS
from mlperf.submission.run_inputs import RunInputs
from mlperf.util.failures import system_failures


class DataVerification:
    """Compares the data of a set of runs once with its checksums, as soon as it is prepared."""

    def __init__(self, inputs: RunInputs) -> None:
        self._inputs = inputs
        self._done = False

    def before_run(self) -> None:
        """Verify the data and print the result. RunError if it is damaged."""
        if self._done:
            return
        with system_failures(self._inputs.data_folder, "the data cannot be verified"):
            if self._inputs.has_reference_files:
                self._done = True
                self._verify_reference_files()
                return
            paths, has_text = self._inputs.prepared, self._inputs.has_text
            # Without raw text, a working folder is left over, and the run uses the data as it is.
            if paths is None or (has_text and (not paths.split("train").exists() or paths.work_folder.exists())):
                print("the data is not verified yet: this run prepares it", flush=True)
                return
            # Imported late, because --help needs no numpy.
            from mlperf.data.prepared.dataset import describe
            from mlperf.data.prepared.manifest import Manifest

            manifest = Manifest.read(paths.manifest)
            self._done = True
            if manifest is None:
                print(f"the data is not verified: no manifest {paths.manifest} with its checksums", flush=True)
                return
            # Imported late: importing compiles its numba functions.
            from mlperf.data.prepared.verify import verify_checksums

            verify_checksums(describe(paths, manifest), TRAINING_SPLITS, drop_cache=True)
            print(f"the data matches the checksums in {paths.manifest}", flush=True)

    def _verify_reference_files(self) -> None:
        # Imported late, because --help needs no numpy.
        from mlperf.data.prepared.dataset import describe_reference
        from mlperf.data.prepared.reference_files import ReferenceFiles
        from mlperf.data.prepared.reference_manifest import MANIFEST_NAME
        from mlperf.data.prepared.reference_paths import DAY
        from mlperf.data.prepared.verify import verify_checksums

        manifest = self._inputs.data_folder / MANIFEST_NAME
        prepared = describe_reference(ReferenceFiles.read(self._inputs.data_folder / DAY))
        if not prepared.checksums:
            print(f"the data is not verified: no manifest {manifest} with its checksums", flush=True)
            return
        verify_checksums(prepared, TRAINING_SPLITS, drop_cache=True)
        print(f"the data matches the checksums in {manifest}", flush=True)
