"""Where labelled images come from: a reader for each form of data, and the splits made of them."""
