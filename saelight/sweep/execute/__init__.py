"""Running a sweep: devices, launchers, searches."""
