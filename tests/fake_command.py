"""The real `affinity-search` command in a process of its own, with the fake objective; so are the workers it starts.

Called as Python is (`fake-python -m search …`), because the launcher starts its workers with `sys.executable`.
"""

import os
import sys

from fake_objective import install, replace_for_good

if __name__ == "__main__":
    assert sys.argv[1:3] == ["-m", "search"], sys.argv
    sys.argv = ["affinity-search", *sys.argv[3:]]
    sys.executable = os.environ["FAKE_PYTHON"]
    install(replace_for_good)
    if "--on" in sys.argv:  # a cluster's nodes choose their own Python
        from search.on_ray import RayWorker

        RayWorker.python = sys.executable
        fakes = {key: value for key, value in os.environ.items() if key.startswith("FAKE_")}
        own = RayWorker.environment
        setattr(RayWorker, "environment", lambda self, study: own(self, study) | fakes)  # noqa: B010
    from search.cli import main

    main()
