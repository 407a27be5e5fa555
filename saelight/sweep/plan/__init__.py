"""From a sweep file to points, and from points to groups that share batches."""
