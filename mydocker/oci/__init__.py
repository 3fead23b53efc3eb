"""The OCI runtime command line, ``mydocker-oci``: what an engine calls for every container, several times.

Each verb is a module named as the verb (``exec_``, ``list_``, ``spec_`` and ``state_`` with an underscore),
with ``OPTIONS``, ``ARGUMENTS`` and ``main(call)``. config.json is the plain dict that it is written as, in the shape of
the runtime spec, once `mydocker.oci.config` has checked it.
"""
