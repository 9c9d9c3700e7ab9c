"""Starts worker processes on this machine or a cluster, and restarts them until the places are used."""
