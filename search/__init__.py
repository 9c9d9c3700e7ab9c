"""How a study is run: commands, launcher, worker, objective, training, devices."""

UNFIT_MACHINE_EXIT = 78  # EX_CONFIG of sysexits.h: a worker that ends with it is not started again by its launcher
