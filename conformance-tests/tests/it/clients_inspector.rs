//! The Inspector's strict reading of the tools, over HTTP and stdio.
