"""What a plan does to some of its pictures, for people to look at."""
