"""How a study is run: commands, launcher, worker, objective, training, devices."""

# What a worker tells its launcher by its exit code (of sysexits.h), which otherwise starts another in its place:
UNFIT_MACHINE_EXIT = 78  # EX_CONFIG: nothing can be trained on this machine; the launcher stops
OUT_OF_MEMORY_EXIT = 71  # EX_OSERR: its GPU has no room for a trial; one more worker is started there, then no other
UNFIT_DEVICE_EXIT = 69  # EX_UNAVAILABLE: its device is gone or full; the launcher's other workers go on
