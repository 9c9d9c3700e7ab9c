"""In place of pynvml, NVIDIA's library: no test machine has such cards."""

from types import SimpleNamespace


class FakeNvml:
    """`names` are the cards on the bus, None means that no driver is there; a UUID has its card's last word in it."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, names: list[str] | None) -> None:
        self.names = names
        self.free_mib = 70_000
        self.lost: set[str] = set()  # names of those that are on the bus, but do not answer
        self.capabilities: dict[str, int] = {}  # by name, where it is not 8
        self.parts: dict[str, list[str]] = {}  # of divided cards (MIG), by name: the parts' UUIDs
        self.fails = False
        self.bytes = False  # whether it answers with bytes, as its older versions
        self.open = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        if self.names is None:
            raise self.NVMLError("Driver Not Loaded")
        self.open = True

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.fails:
            raise self.NVMLError("Unknown Error")
        assert self.names is not None
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        assert self.open
        assert self.names is not None
        name = self.names[index]
        if name in self.lost:
            raise self.NVMLError("GPU is lost")
        return name

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if handle.startswith("MIG-"):
            return SimpleNamespace(total=10_000 << 20, free=9_000 << 20)
        return SimpleNamespace(total=80_000 << 20, free=self.free_mib << 20)

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if not self.parts:
            raise self.NVMLError("Not Supported")
        return [int(handle in self.parts), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: str, index: int) -> str:  # noqa: N802
        parts = self.parts[handle]
        if index >= len(parts):
            raise self.NVMLError("Not Found")
        return parts[index]

    def nvmlDeviceGetName(self, handle: str) -> str | bytes:  # noqa: N802
        return self._said(handle)

    def nvmlDeviceGetUUID(self, handle: str) -> str | bytes:  # noqa: N802
        return self._said(handle if handle.startswith("MIG-") else f"GPU-{handle.split()[-1]}-fake")

    def nvmlDeviceGetCudaComputeCapability(self, handle: str) -> list[int]:  # noqa: N802
        return [self.capabilities.get(handle, 8), 0]

    def _said(self, text: str) -> str | bytes:
        return text.encode() if self.bytes else text
