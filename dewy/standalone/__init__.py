"""Programs that dewy starts as files, in a bare and isolated interpreter (`python -I -S FILE`).

They import nothing but a few modules of the standard library, which keeps them small and quick to start, and they are
never imported by dewy.
"""
