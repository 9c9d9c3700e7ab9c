"""How a study is run: commands, launcher, worker, training, devices, and what people see of it."""
