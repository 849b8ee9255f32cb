"""The result database: a row for each job, step and attempt that has ended. Imported only where there is one."""
