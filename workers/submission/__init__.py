"""Submission of Lightwell commands to the job server of a Ray cluster.

    working_dir   local files that a command needs, and their places in the job's working directory
    package       the installed Lightwell, packaged for upload
    server        HTTP client of the cluster's job server
    log_stream    streams a job's log and returns its final state

Relative paths are uploaded, absolute paths are on the cluster: a job file, its plan and the files they declare are uploaded;
data, caches and results are on storage that every node can access, with absolute paths or URIs. Data is never uploaded.
"""
