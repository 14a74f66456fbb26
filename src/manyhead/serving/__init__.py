"""A trained model behind HTTP: one worker runs the model for all requests and tasks together.

What arrives passes, in this order: `connections` (slow and idle sockets), `gate` (token, size, room in the queue: all
before a body is read), `bodies` (strict JSON), `app` (the routes), `batching` (the queue and its worker).
"""
