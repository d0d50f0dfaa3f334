"""Which imports a pickle of weights may hold: the allow-list of ``torch.load(weights_only=True)`` and numpy's array
constructors are "safe", primitives that run code or reach files, processes or the network are "dangerous", everything
else is "unknown".
"""

from __future__ import annotations

import re

#: Stands for a module or attribute name that is not in the file but put together while loading.
COMPUTED = "<computed at load time>"

#: Root modules that run code, reach files, processes or the network, or look up arbitrary attributes.
_DANGEROUS_ROOTS = frozenset(
    {
        *("os", "posix", "nt", "ntpath", "posixpath", "sys", "shutil", "subprocess", "_posixsubprocess", "pty"),
        *("socket", "socketserver", "ssl", "http", "httplib", "urllib", "urllib2", "urllib3", "requests", "httpx"),
        *("aiohttp", "ftplib", "smtplib", "telnetlib", "xmlrpc", "poplib", "imaplib", "nntplib", "webbrowser"),
        *("importlib", "imp", "zipimport", "pkgutil", "runpy", "code", "codeop", "ctypes", "_ctypes", "cffi"),
        *("multiprocessing", "threading", "_thread", "asyncio", "signal", "atexit", "gc", "inspect", "ast"),
        *("pip", "setuptools", "distutils", "ensurepip", "venv", "site", "pdb", "bdb", "profile", "cProfile"),
        *("timeit", "trace", "doctest", "pydoc", "idlelib", "lib2to3", "cmd", "platform", "commands", "popen2"),
        *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "tempfile", "pathlib"),
        *("fileinput", "linecache", "sqlite3", "io", "_io", "_pyio", "mmap", "fcntl", "resource", "readline"),
    }
)
#: Dangerous although their root module is not: compared with every prefix of ``module.name``.
_DANGEROUS_PATHS = frozenset(
    {
        *("operator.attrgetter", "operator.methodcaller", "_operator.attrgetter", "_operator.methodcaller"),
        *("types.FunctionType", "types.CodeType", "types.MethodType", "types.LambdaType", "types.ModuleType"),
        *("copyreg.add_extension", "codecs.open", "_codecs.register", "test.support", "unittest.mock"),
        *("logging.config", "logging.handlers", "logging.FileHandler", "uuid._popen", "uuid._get_command_stdout"),
        *("numpy.load", "numpy.save", "numpy.fromfile", "numpy.memmap", "numpy.testing", "numpy.f2py"),
        *("numpy.distutils", "numpy.lib.npyio", "numpy.ctypeslib", "pandas.read_pickle", "pandas.eval"),
        *("torch.load", "torch.save", "torch.serialization.load", "torch.hub", "torch.jit", "torch.package"),
        *("torch.fx", "torch.ops", "torch._ops", "torch.classes", "torch._inductor", "torch._dynamo"),
        *("torch.multiprocessing", "torch.testing", "torch.distributed.rpc", "torch.distributed.elastic"),
        *("torch.distributed.launcher", "torch.utils.cpp_extension", "torch.utils.collect_env"),
        *("torch.utils.bottleneck", "torch.utils._config_module", "torch.utils.model_zoo", "joblib.load"),
        *("transformers.dynamic_module_utils", "huggingface_hub", "yaml.load", "yaml.unsafe_load"),
        *("sympy.sympify", "keras.models.load_model", "tensorflow.io", "scipy.weave"),
    }
)
_DANGEROUS_BUILTINS = frozenset(
    {
        *("eval", "exec", "execfile", "compile", "__import__", "open", "file", "getattr", "setattr", "delattr"),
        *("globals", "locals", "vars", "input", "raw_input", "breakpoint", "apply", "help", "type", "super"),
    }
)
#: In a dangerous module, and harmless to construct: training scripts put them into their checkpoints.
_COMMON = frozenset(
    {
        *("pathlib.Path", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.PureWindowsPath"),
        *("pathlib.WindowsPath", "pathlib._local.PosixPath", "io.BytesIO", "_io.BytesIO", "io.StringIO"),
    }
)
_SAFE_BUILTINS = frozenset(
    {
        *("bytearray", "bytes", "bool", "complex", "dict", "float", "frozenset", "int", "list", "object"),
        *("range", "set", "slice", "str", "tuple"),
    }
)
_SAFE = frozenset({"collections.OrderedDict", "collections.Counter", "_codecs.encode"})
_NUMPY_SAFE = re.compile(
    r"numpy\.(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|numpy\.(ndarray|dtype)"
    r"|numpy\.dtypes\.\w+DType|numpy\.(bool_?|u?int(8|16|32|64)|float(16|32|64))"
)
_KIND = "BFloat16|Bool|Byte|Char|ComplexDouble|ComplexFloat|Double|Float|Half|Int|Long|Short"
_TORCH_SAFE = re.compile(
    rf"torch\.(cuda\.)?({_KIND}|Q(Int8|Int32|UInt8|UInt4x2|UInt2x4))Storage|torch\.(cuda\.)?(sparse\.)?({_KIND})Tensor"
    r"|torch\.storage\.(Untyped|Typed)Storage|torch\.(Size|Tensor|device)|torch\.nn\.parameter\.Parameter"
    r"|torch\.u?int\d+|torch\.b?float\d+(_e\dm\d\w*)?|torch\.(bool|complex(32|64|128)|q(u?int(8|32)|uint[24]x[24]))"
    r"|torch\.bits\d+(x\d)?|torch\.per_(tensor|channel)_(affine|symmetric|affine_float_qparams)"
    r"|torch\.serialization\._get_layout|torch\._tensor\._rebuild_from_type_v2|torch\._utils\._rebuild_(tensor(_v[23])?"
    r"|parameter(_with_state)?|qtensor|sparse_tensor|nested_tensor|wrapper_subclass|meta_tensor_no_storage"
    r"|device_tensor_from_(numpy|cpu_tensor))"
)


def classify(module: str, name: str) -> str:
    """ "safe" (on the allow-list of weights), "dangerous" or "unknown" for one import.

    >>> classify("collections", "OrderedDict"), classify("posix", "system"), classify("mylib", "Net")
    ('safe', 'dangerous', 'unknown')
    """
    full = f"{module}.{name}"
    root = module.split(".")[0]
    steps = name.split(".")
    if COMPUTED in full:
        return "dangerous"
    if root in ("builtins", "__builtin__"):
        if name in _SAFE_BUILTINS:
            return "safe"
        return "dangerous" if steps[0] in _DANGEROUS_BUILTINS or len(steps) > 1 else "unknown"
    if full in _SAFE or _TORCH_SAFE.fullmatch(full) or _NUMPY_SAFE.fullmatch(full):
        return "safe"
    if full in _COMMON:
        return "unknown"
    parts = full.split(".")
    if root in _DANGEROUS_ROOTS or any(".".join(parts[:n]) in _DANGEROUS_PATHS for n in range(2, len(parts) + 1)):
        return "dangerous"
    # A dotted name walks attributes: "torch" + "serialization.os.system" reaches os through another module.
    # Modules that import os, sys and the like also hand them out as a plain attribute.
    if any(step in _DANGEROUS_ROOTS or (step.startswith("__") and step != "__main__") for step in steps):
        return "dangerous"
    return "unknown"
