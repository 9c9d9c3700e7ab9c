"""How a study is run: commands, launcher, worker, objective, training, devices."""

# A worker that ends with one of these (of sysexits.h) is not started again by its launcher:
UNFIT_MACHINE_EXIT = 78  # EX_CONFIG: nothing can be trained on this machine; the launcher stops
UNFIT_DEVICE_EXIT = 69  # EX_UNAVAILABLE: its device is gone or full; the launcher's other workers go on
