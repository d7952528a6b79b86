"""Submission: a command line of ours, run by the job server of a Ray cluster.

    shipment    which files of this machine a command needs, and where they lie on the other side
    package     this very Lightwell as it goes along, out of a checkout or an installation
    server      the job server of a cluster, behind its HTTP address
    following   a job's log as it grows, and how it ended

What is relative is shipped, what is absolute is on the cluster: a job file, the plan it names and files beside them go
along; data, caches and results lie where every node sees them, so their paths have to be absolute, or URIs. Data is
never shipped.
"""
