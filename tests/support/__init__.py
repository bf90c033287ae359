"""What tests stand on: bundles, a runtime under test, and the check that nothing is left behind."""
