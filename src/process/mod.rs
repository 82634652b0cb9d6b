//! Child processes of our own: the executor and the playbook worker.
