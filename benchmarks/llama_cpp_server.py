"""`python llama_cpp_server.py FILE THREADS`: a llama.cpp with a float32 cache on this machine, until it is killed.

Prints its address. It has a process of its own, as a user's has, and as its own CPU time is told from.
"""

import signal
import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 512, 1, True, 0
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[2])
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
