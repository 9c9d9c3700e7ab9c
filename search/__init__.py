"""How a study is run: commands, launcher, worker, objective, training, devices."""
