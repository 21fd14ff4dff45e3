"""One paper a file: the citation and equations, what the paper adds, and a recipe that names what it borrows."""
