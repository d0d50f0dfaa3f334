"""Which imports a pickle may hold and still be called harmless: an allow-list.

"safe" are what ``torch.load(weights_only=True)`` allows, numpy's arrays and random states, scipy's sparse matrices, the
estimators of scikit-learn, joblib's arrays and the plain classes of the standard library. "dangerous" are names known
to run code or to reach files, processes or the network; this list only serves to name them. Everything else is
"unknown", and a file that imports it cannot be vouched for.
"""

from __future__ import annotations

import re

from vestige.core.models.sklearn_classes import CLASSES

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
        *(
            "osx_support",
            "aix_support",
            "zipfile",
            "tarfile",
            "gzip",
            "bz2",
            "lzma",
            "dbm",
            "bltns",
            "numexpr",
            "winreg",
        ),
        *("winreg", "fabric", "paramiko", "pexpect", "invoke", "plumbum", "sh", "winapi", "testcapi"),
        *("_frozen_importlib", "_frozen_importlib_external", "compileall", "py_compile", "test", "unittest", "glob"),
        *("filecmp", "select", "selectors", "syslog"),
        *("pyrepl", "sitebuiltins", "bootsubprocess", "dummy_thread", "interpreters", "concurrent", "wsgiref"),
    }
)
#: Dangerous although their root module is not: compared with every prefix of ``module.name``.
_DANGEROUS_PATHS = frozenset(
    {
        *("operator.attrgetter", "operator.methodcaller", "_operator.attrgetter", "_operator.methodcaller"),
        *("types.FunctionType", "types.CodeType", "types.MethodType", "types.LambdaType", "types.ModuleType"),
        *("copyreg.add_extension", "codecs.open", "_codecs.register", "torch.compile"),
        *("logging.config", "logging.handlers", "logging.FileHandler", "uuid._popen", "uuid._get_command_stdout"),
        *("numpy.load", "numpy.save", "numpy.fromfile", "numpy.memmap", "numpy.testing", "numpy.f2py"),
        *("numpy.distutils", "numpy.lib.npyio", "numpy.ctypeslib", "pandas.read_pickle", "pandas.eval"),
        *("torch.load", "torch.save", "torch.serialization.load", "torch.hub", "torch.jit", "torch.package"),
        *("torch.fx", "torch.ops", "torch._ops", "torch.classes", "torch._inductor", "torch._dynamo"),
        *("torch.multiprocessing", "torch.testing", "torch.distributed.rpc", "torch.distributed.elastic"),
        *("torch.distributed.launcher", "torch.utils.cpp_extension", "torch.utils.collect_env"),
        *("torch.utils.bottleneck", "torch.utils._config_module", "torch.utils.model_zoo", "joblib.load"),
        *("transformers.dynamic_module_utils", "huggingface_hub", "yaml.load", "yaml.unsafe_load"),
        *(
            "sympy.sympify",
            "sympy.parsing",
            "sympy.core.sympify",
            "sympy.utilities",
            "sympy.printing",
            "sympy.plotting",
        ),
        *("keras.models.load_model", "tensorflow.io", "scipy.weave", "scipy.io", "scipy.datasets", "pandas.io"),
        *(
            "sympy.plotting",
            "torch.distributed.run",
            "torch.utils.tensorboard",
            "torch.utils.data.datapipes",
        ),
        *("torch.utils.file_baton",),
        *("torch.utils._cpp_extension_versioner", "torch.utils.hipify", "torch.backends._nnapi", "torch.export"),
        *("torch._export", "torch._functorch", "torch.compiler", "torch.onnx", "torch.profiler", "torch._lobpcg"),
        *("mlflow.projects", "mlflow.pyfunc", "mlflow.utils.process", "joblib.memory", "joblib.Memory", "h5py.File"),
        *("logging.FileHandler", "numpy.DataSource", "numpy.lib._datasource", "numpy.lib._npyio_impl", "numpy.savetxt"),
        *("numpy.loadtxt", "numpy.genfromtxt", "numpy.savez", "numpy.ndarray.tofile", "numpy.ndarray.dump"),
        *(
            "sklearn.datasets",
            "sklearn.utils._testing",
            "sklearn.externals",
            "jinja2",
            "mako",
            "ansible",
            "PIL.ImageMath",
        ),
    }
)
#: Modules that are dangerous wherever another module hands them out, with or without underscores before their name.
_DANGEROUS_STEPS = frozenset(
    {
        *(
            "os",
            "posix",
            "nt",
            "sys",
            "builtins",
            "bltns",
            "subprocess",
            "posixsubprocess",
            "shutil",
            "socket",
            "ctypes",
        ),
        *("ctypes", "importlib", "runpy", "pty", "pickle", "marshal", "osx_support", "sympy_parser"),
    }
)
#: What functions are called that run their argument, start a program or read and write files.
_DANGEROUS_NAMES = re.compile(
    r"_*(system|main|popen\w*|Popen|exec\w*|eval(_\w+|uate)?|compile|spawn\w*|fork|run(_\w+)?|check_(output|call)|open(_\w+)?"
    r"|getoutput|getstatusoutput|import_\w+|load_(\w+_)?(module|library|source)|read_output|read_(csv|table|pickle|json|html|xml"
    r"|hdf|sql\w*|excel|fwf)|to_(csv|pickle|json)|sympify|parse_expr|parse_maxima|lambdify|(write|save)(_\w+)?"
    r"|unlink|remove|rmtree|rmdir|urlopen|urlretrieve|download\w*|(\w*[a-z0-9])?(File|FileHandler|FileWriter|SummaryWriter))"
)
_DANGEROUS_BUILTINS = frozenset(
    {
        *("eval", "exec", "execfile", "compile", "__import__", "open", "file", "getattr", "setattr", "delattr"),
        *("globals", "locals", "vars", "input", "raw_input", "breakpoint", "apply", "help", "type", "super"),
    }
)
_SAFE_BUILTINS = frozenset(
    {
        *("bytearray", "bytes", "bool", "complex", "dict", "float", "frozenset", "int", "list", "object"),
        *("range", "set", "slice", "str", "tuple"),
    }
)
_SAFE = frozenset(
    {
        *("collections.OrderedDict", "collections.Counter", "collections.defaultdict", "collections.deque"),
        *(
            "_codecs.encode",
            "copyreg._reconstructor",
            "copyreg.__newobj__",
            "argparse.Namespace",
            "types.SimpleNamespace",
        ),
        *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "datetime.timezone"),
        *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "uuid.SafeUUID", "io.BytesIO", "_io.BytesIO"),
        *("io.StringIO", "_io.StringIO", "joblib.numpy_pickle.NumpyArrayWrapper", "numpy.mean", "numpy.median"),
        *(
            "scipy.interpolate._bsplines.BSpline",
            "sklearn.utils._bunch.Bunch",
            "scipy._lib.array_api_compat.numpy._aliases.asarray",
        ),
        *("sklearn.feature_selection._univariate_selection.f_classif", "sklearn.cluster._kmeans._kmeans_single_lloyd"),
    }
)
_PATH_SAFE = re.compile(r"pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path")
_NUMPY_SAFE = re.compile(
    r"numpy\.(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)|numpy\.(ndarray|dtype)"
    r"|numpy\.dtypes\.\w+DType|numpy\.(bool_?|u?int(8|16|32|64)|float(16|32|64|128)|complex(64|128)|str_|bytes_|void"
    r"|datetime64|timedelta64|longlong|ulonglong|longdouble|record|recarray|matrix)"
    r"|numpy\.matrixlib\.defmatrix\.matrix|numpy\.ma(\.core)?\.(_mareconstruct|MaskedArray|MaskedConstant)"
    r"|numpy\.random\._pickle\.__(randomstate|generator|bit_generator)_ctor"
    r"|numpy\.random\._(mt19937\.MT19937|pcg64\.PCG64(DXSM)?|philox\.Philox|sfc64\.SFC64|generator\.Generator)"
    r"|numpy\.random\.(mtrand\.RandomState|bit_generator\.(SeedSequence|__pyx_unpickle_SeedSequence))"
)
_SPARSE_SAFE = re.compile(r"scipy\.sparse\._?([a-z]{3})\.(csr|csc|coo|bsr|dia|dok|lil)_(matrix|array)")
#: The parts of scikit-learn whose estimators only keep what they are given.
_SKLEARN_PARTS = re.compile(
    r"sklearn\.(linear_model|ensemble|tree|svm|neighbors|naive_bayes|preprocessing|cluster|decomposition|pipeline|compose"
    r"|impute|feature_selection|feature_extraction|neural_network|gaussian_process|mixture|discriminant_analysis"
    r"|calibration|isotonic|kernel_ridge|kernel_approximation|model_selection|multiclass|multioutput|dummy|covariance"
    r"|cross_decomposition|manifold|random_projection|semi_supervised|frozen|metrics)(\.\w+)*"
)
_SKLEARN_SAFE = re.compile(
    r"sklearn\._loss\.(_loss\.(__pyx_unpickle_)?Cy\w+|link\.(Interval|\w+L(ink|ogit))|loss\.(Half\w+|PinballLoss|HuberLoss"
    r"|AbsoluteError|ExponentialLoss))|sklearn\.metrics\._dist_metrics\.(newObj|[A-Z]\w+Distance(32|64)?)"
    r"|sklearn\.neighbors\._(kd|ball)_tree\.(newObj|(KD|Ball)Tree(32|64)?)"
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
    """ "safe" (on the allow-list), "dangerous" (known to be) or "unknown" for one import.

    >>> classify("collections", "OrderedDict"), classify("posix", "system"), classify("mylib", "Net")
    ('safe', 'dangerous', 'unknown')
    """
    full = f"{module}.{name}"
    root = module.split(".")[0]
    steps = name.split(".")
    if COMPUTED in full:
        return "dangerous"
    if root in ("builtins", "__builtin__"):
        if module == root and name in _SAFE_BUILTINS:
            return "safe"
        return "dangerous" if steps[0] in _DANGEROUS_BUILTINS or len(steps) > 1 else "unknown"
    if _safe(module, name, full):
        return "safe"
    parts = full.split(".")
    bare = [part.lstrip("_") or part for part in parts]
    if {parts[0], bare[0]} & _DANGEROUS_ROOTS or any(
        ".".join(parts[:n]) in _DANGEROUS_PATHS for n in range(1, len(parts) + 1)
    ):
        return "dangerous"
    # A dotted name walks attributes: "torch" + "serialization.os.system" reaches os through another module.
    # Modules that import os, sys and the like also hand them out as a plain attribute, often with underscores.
    if any(step.lstrip("_") in _DANGEROUS_ROOTS or (step.startswith("__") and step != "__main__") for step in steps):
        return "dangerous"
    if any(step in _DANGEROUS_STEPS for step in bare) or _DANGEROUS_NAMES.fullmatch(steps[-1]):
        return "dangerous"
    return "unknown"


def _safe(module: str, name: str, full: str) -> bool:
    if full in _SAFE:
        return True
    patterns = (_TORCH_SAFE, _NUMPY_SAFE, _PATH_SAFE, _SPARSE_SAFE, _SKLEARN_SAFE)
    if any(pattern.fullmatch(full) for pattern in patterns):
        return True
    return name in CLASSES and _SKLEARN_PARTS.fullmatch(module) is not None
