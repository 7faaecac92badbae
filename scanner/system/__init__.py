"""The machine the program runs on: the user's folders, files that appear whole, patience."""
