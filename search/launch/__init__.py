"""Worker processes on this machine or a cluster, kept alive until the places are used."""
