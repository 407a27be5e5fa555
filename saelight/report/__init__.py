"""What a run or a sweep came to, as one page that opens in a browser without a network."""
