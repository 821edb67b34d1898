"""The errors that users can meet: one root class and its subclasses, each with a one-line message."""

from __future__ import annotations

import os
import re

# Packages whose name differs from the name of their module.
_PACKAGES = {"smbclient": "smbprotocol", "dask": "dask[distributed]", "git": "GitPython"}


class PatchPrismError(Exception):
    """Base class of all errors that PatchPrism raises on purpose.

    The message is one line that names the argument, the value and what is allowed.
    """

    def name_option(self, option: str, path: str) -> None:
        """Name the option in a message that begins with its path.

        Parameters
        ----------
        option : str
            A parameter, or a flag.
        path : str
            Its value, as it was given.

        Examples
        --------
        >>> error = WeightsError("dog.pth: the file is empty")
        >>> error.name_option("weights", "./dog.pth")
        >>> str(error)
        "weights './dog.pth': the file is empty"
        """
        said = {path, os.path.normpath(path), os.path.expanduser(path)}
        names = "|".join(re.escape(each) for each in sorted(said, key=len, reverse=True))
        known = rf"[a-z_]+ {re.escape(repr(path))}"
        message, found = re.subn(
            rf"\A(cannot write )?(?:(?:{names})(?=: )|{known})",
            lambda match: f"{match[1] or ''}{option} {path!r}",
            str(self),
        )
        if found:
            self.args = (message, *self.args[1:])


class OptionError(PatchPrismError, ValueError):
    """An option has a value that is not allowed.

    Parameters
    ----------
    message : str
        If it begins with the parameter's name, the command line can replace that name with the flag.
    option : str
        Name of the parameter; empty if the error concerns several parameters.
    """

    def __init__(self, message: str, *, option: str = "") -> None:
        super().__init__(message)
        self.option = option


class PhotoError(PatchPrismError):
    """A photo cannot be read or framed.

    Parameters
    ----------
    name : str
        The photo, as the user named it.
    reason : str
        Why, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        # By default an exception is unpickled from ``args``, which here is the message, not the two arguments.
        return type(self), (self.name, self.reason)


class ModelError(PatchPrismError):
    """A model is unknown, or cannot do what was requested."""


class WeightsError(PatchPrismError):
    """Weights cannot be found, fetched, trusted or loaded."""


class FeaturesError(PatchPrismError, ValueError):
    """Patch features cannot be used: they are not finite, their widths differ, or there are none."""


class PrismError(PatchPrismError):
    """A prism cannot be fitted, read, or used with these features."""


class HeadError(PatchPrismError):
    """A head cannot be read, or used with these features."""


class MaskError(PatchPrismError):
    """A mask cannot be read, or does not fit its photo."""


class ExtraError(PatchPrismError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    extra : str
        Name of the extra that includes it, as in ``pip install 'patchprism[extra]'``.
    purpose : str
        What needs it.
    package : str, optional
        The missing package, if the extra does not include it, or if the rest of the extra is installed.
    how : str, optional
        The command that installs this package, if it is not the usual one.
    """

    def __init__(self, extra: str, purpose: str, package: str = "", how: str = "") -> None:
        if package:
            how = how or f"pip install '{package}'"
            super().__init__(f"{purpose} needs the package {package}: {how}")
        else:
            super().__init__(f"{purpose} needs an extra: pip install 'patchprism[{extra}]'")
        self.extra = extra
        self.purpose = purpose
        self.package = package
        self.how = how

    @classmethod
    def of(cls, error: ImportError, extra: str, purpose: str, *brought: str) -> ExtraError:
        """The error that names what is missing: the extra, or a package that the extra does not include.

        Parameters
        ----------
        error : ImportError
            The error that the import raised.
        extra, purpose : str
            As for the constructor.
        *brought : str
            Modules that the extra includes.
        """
        cause: BaseException | None = error
        for _ in range(5):  # fsspec's error says what to install; only its cause names the missing module
            module = (getattr(cause, "name", None) or "").split(".")[0]
            if module or cause is None:
                break
            cause = cause.__cause__
        if not module or module in brought:
            return cls(extra, purpose)
        return cls(extra, purpose, _PACKAGES.get(module, module))

    def __reduce__(self) -> tuple[type[ExtraError], tuple[str, str, str, str]]:
        return type(self), (self.extra, self.purpose, self.package, self.how)


class OutputError(PatchPrismError):
    """A file cannot be written.

    Parameters
    ----------
    name : str
        The file, as the user would look for it.
    reason : str
        Why, in a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot write {name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[OutputError], tuple[str, str]]:
        return type(self), (self.name, self.reason)


class StoreError(PatchPrismError):
    """A feature store cannot be read, written or trusted."""


class EngineError(PatchPrismError):
    """An engine cannot be started, or its workers fail repeatedly."""
