"""What a sweep keeps on disk: index, groups, journal, results."""
