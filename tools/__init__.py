"""What the project's own makers run: the site, the matrix of installations, licences, sentences."""
