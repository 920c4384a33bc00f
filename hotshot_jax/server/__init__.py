"""Clips over HTTP: jobs that survive, one worker that owns the model, and an API in front of it.

`Service` is what pages and programs talk to; `api` puts it behind HTTP.
"""
