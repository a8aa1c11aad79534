"""System description required by MLPerf, filled in with the properties that can be detected.

Other properties, such as the cooling, must be provided by the submitter; nothing is guessed. The fields are those
of the system description checker.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mlperf.submission.json_file import read_json
from mlperf.util.errors import RunError, UsageError

_NO_ACCELERATOR = (
    *("accelerator_model_name", "accelerator_host_interconnect", "accelerator_frequency"),
    *("accelerator_on-chip_memories", "accelerator_memory_configuration", "accelerator_memory_capacity"),
    *("accelerator_interconnect", "accelerator_interconnect_topology"),
)
FIELDS = (
    *("submitter", "division", "status", "system_name", "number_of_nodes", "host_processors_per_node"),
    *("host_processor_model_name", "host_processor_core_count", "host_processor_vcpu_count"),
    *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect"),
    *("host_memory_capacity", "host_storage_type", "host_storage_capacity", "host_networking"),
    *("host_networking_topology", "host_memory_configuration", "accelerators_per_node", *_NO_ACCELERATOR),
    *("cooling", "hw_notes", "framework", "other_software_stack", "operating_system", "sw_notes"),
)
_MAY_BE_EMPTY = ("hw_notes", "sw_notes")
# What a description calls the values of submission_status: the checker allows nothing else from edition 4.0.0 on.
AVAILABILITY = {
    "onprem": "Available on-premise",
    "cloud": "Available cloud",
    "preview": "Preview",
    "research": "Research, Development, or Internal (RDI)",
}
# Fields that the checker and the summarizer concatenate into table rows: they must be strings.
_TEXT_FIELDS = (
    *("submitter", "system_name", "host_processor_model_name", "host_processor_core_count"),
    *("accelerator_model_name", "accelerators_per_node", "framework"),
)
_COUNTS = ("number_of_nodes", "host_processors_per_node", "accelerators_per_node")
# Fields without which the summarizer fails, in any edition.
SUMMARY_FIELDS = frozenset((*_TEXT_FIELDS, *_COUNTS, *_MAY_BE_EMPTY, "division", "status"))
_PACKAGES = ("numpy", "numba", "scikit-learn", "mlperf-logging")

Description = dict[str, str | dict[str, str]]


def empty_description(system: str, division: str) -> Description:
    """Return a description without content that the checkers accept."""
    known = {"division": division, "system_name": system, "number_of_nodes": "1", "submitter": "unnamed"}
    known |= {"status": AVAILABILITY["onprem"]}
    counts = {"host_processors_per_node": "1", "accelerators_per_node": "0"}
    return {name: known.get(name, counts.get(name, "")) for name in FIELDS}


def missing_fields(description: Mapping[str, object]) -> list[str]:
    """Return the fields that are missing or empty. Notes may be empty."""
    return [
        name
        for name in FIELDS
        if name not in _MAY_BE_EMPTY and str(description.get(name) or "").strip() in ("", "{}")
    ]


def required_kind(name: str, value: object) -> str | None:
    """Return the required kind of a field if its value makes an official tool fail, otherwise None."""
    # The summarizer skips empty notes, whatever their type.
    if name in (*_TEXT_FIELDS, *(_MAY_BE_EMPTY if value else ())) and not isinstance(value, str):
        return "a string"
    if name == "division" and value not in ("closed", "open"):
        return "closed or open"
    if name in _COUNTS:
        try:
            int(value)  # type: ignore[call-overload]
        except (TypeError, ValueError, OverflowError):
            return "a whole number"
    return None


def read_description(path: Path) -> Description:
    """Return the fields of a JSON file. UsageError if it is not an object with known fields and strings."""
    content = read_json(path, "--system-file")
    if not isinstance(content, dict):
        raise UsageError(f"--system-file={path}: not one JSON object")
    for name, value in content.items():
        if name not in FIELDS:
            raise UsageError(f"--system-file={path}: unknown field {name!r}; allowed are {', '.join(FIELDS)}")
        if not isinstance(value, str) and not (name == "other_software_stack" and isinstance(value, dict)):
            raise UsageError(f"--system-file={path}: {name} must be a string")
    return content


def describe_machine(storage: Path, *, use_gpu: bool, processes: int = 1) -> Description:
    """Return the fields that can be detected on this machine, as one node.

    storage: folder with the data. processes: of a run, each with a GPU of its own.
    """
    found: Description = {"number_of_nodes": "1", "host_networking_topology": "none, one node"}
    found |= {"hw_notes": "", "sw_notes": ""}
    found |= describe_processors(_output("lscpu"))
    found |= _memory() | _storage(storage) | _network() | _software()
    none: Description = {"accelerators_per_node": "0", **dict.fromkeys(_NO_ACCELERATOR, "none")}
    found |= _accelerators(processes) if use_gpu else none
    return {name: value for name, value in found.items() if value or name in _MAY_BE_EMPTY}


def _output(*command: str) -> str:
    """Return the output of a program; "" if it is missing or fails."""
    try:
        completed = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return completed.stdout


def describe_processors(lscpu: str) -> Description:
    """Return the processor fields from the output of lscpu; unknown ones are missing or empty."""
    pairs = [line.partition(":") for line in lscpu.splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in pairs if value.strip() != "-"}  # "-" means unknown
    model = facts.get("Model name", "")
    found: Description = {
        "host_processors_per_node": facts.get("Socket(s)", ""),
        "host_processor_model_name": model,
        "host_processor_core_count": facts.get("Core(s) per socket", ""),
        "host_processor_vcpu_count": facts.get("CPU(s)", ""),
        "host_processor_caches": ", ".join(
            f"{name.removesuffix(' cache')} {value}" for name, value in facts.items() if name.endswith(" cache")
        ),
    }
    if "CPU max MHz" in facts:
        found["host_processor_frequency"] = f"{float(facts['CPU max MHz']) / 1000:.2f} GHz at most"
    elif match := re.search(r"@ ([\d.]+ ?GHz)", model):
        found["host_processor_frequency"] = match[1]
    if found["host_processors_per_node"] == "1":
        found["host_processor_interconnect"] = "none, one processor"
    return found


def _memory() -> Description:
    found: Description = {}
    with open("/proc/meminfo", encoding="ascii") as lines:
        total = next(int(line.split()[1]) for line in lines if line.startswith("MemTotal"))
    found["host_memory_capacity"] = f"{total / 2**20:.1f} GiB"
    modules = re.findall(r"^\tSize: (\d+ [KMGT]B)$", _output("dmidecode", "--type=memory"), re.MULTILINE)
    if modules:  # dmidecode needs root
        counts = {size: modules.count(size) for size in dict.fromkeys(modules)}
        found["host_memory_configuration"] = ", ".join(f"{count} x {size}" for size, count in counts.items())
    return found


def _storage(path: Path) -> Description:
    while not path.exists():
        path = path.parent
    found: Description = {"host_storage_capacity": f"{shutil.disk_usage(path).total / 1e9:.0f} GB"}
    source = _output("findmnt", "--noheadings", "--output=SOURCE", f"--target={path}").strip()
    facts = _output("lsblk", "--noheadings", "--nodeps", "--output=TRAN,ROTA", source).split() if source else []
    if "nvme" in source:
        found["host_storage_type"] = "NVMe SSD"
    elif len(facts) == 2:  # a virtual disk has no bus, and its rotation flag means nothing
        found["host_storage_type"] = f"{facts[0].upper()} {'HDD' if facts[1] == '1' else 'SSD'}"
    return found


def _network() -> Description:
    speeds = []
    for device in sorted(Path("/sys/class/net").glob("*/device")):
        try:
            speed = int((device.parent / "speed").read_text())
        except (OSError, ValueError):
            continue
        if speed > 0:
            speeds.append(f"{device.parent.name} {speed / 1000:g} Gb/s")
    return {"host_networking": ", ".join(speeds)}


def _software() -> Description:
    import torch

    stack = {"python": platform.python_version()}
    stack |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    stack["kernel"] = platform.release()
    if torch.version.cuda is not None:
        stack["cuda"] = torch.version.cuda
        stack["cudnn"] = str(torch.backends.cudnn.version())
        driver = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
        stack |= {"driver": driver[0]} if driver else {}
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if Path("/etc/os-release").exists() else ""
    return {
        "framework": f"PyTorch {torch.__version__}",
        "other_software_stack": stack,
        "operating_system": system or platform.platform(),
    }


def _accelerators(count: int) -> Description:
    import torch

    if not torch.cuda.is_available():
        raise RunError("--use-gpu: no GPU is visible to PyTorch")
    if count > torch.cuda.device_count():
        raise RunError(f"NPROC={count}: {torch.cuda.device_count()} GPUs are visible to PyTorch")
    device = torch.cuda.get_device_properties(0)
    found: Description = {
        "accelerators_per_node": str(count),
        "accelerator_model_name": device.name,
        "accelerator_memory_capacity": f"{device.total_memory / 2**30:.0f} GiB",
        "accelerator_on-chip_memories": f"L2 {device.L2_cache_size / 2**20:.0f} MiB",
    }
    query = "clocks.max.sm,pcie.link.gen.max,pcie.link.width.max"
    facts = _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits").splitlines()
    if facts and facts[0].count(",") == 2:
        clock, generation, width = (fact.strip() for fact in facts[0].split(","))
        found["accelerator_frequency"] = f"{clock} MHz at most"
        found["accelerator_host_interconnect"] = f"PCIe {generation}.0 x{width}"
    if count == 1:
        found |= {"accelerator_interconnect": "none, one accelerator"}
        found |= {"accelerator_interconnect_topology": "none, one accelerator"}
    elif links := set(re.findall(r"\bNV\d+\b", _output("nvidia-smi", "topo", "-m"))):
        found["accelerator_interconnect"] = f"NVLink ({', '.join(sorted(links))} in nvidia-smi topo)"
    return found
