"""Where jobs run. `inline` runs them one after the other in one child process."""
