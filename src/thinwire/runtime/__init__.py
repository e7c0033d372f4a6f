"""Runtime on one machine: the experiment, the simulation, the ledger, the checkpoint."""
