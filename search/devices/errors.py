"""What can be wrong with a device."""

from search.training.errors import UnfitMachineError


class DeviceError(UnfitMachineError):
    """The device asked for is not there or can no longer be configured: its worker stops, those of others go on."""
