"""Ridge regression that can take rows in and out exactly: rank-k updates of an inverse Gram matrix.

R = (HᵀH + γI)⁻¹ is all that is kept of the rows H (n×M). Adding or removing k rows costs O(M²k) instead of a new
solution over everything that was ever seen, and gives the same result up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vestige.core.errors import InputError, UsageError

#: Smallest eigenvalue of I − H R Hᵀ that still means "these rows are inside R".
FLOOR = 1e-10


def grown(inverse: Tensor, rows: Tensor) -> Tensor:
    """(A + HᵀH)⁻¹ from R = A⁻¹:  R − R Hᵀ (I + H R Hᵀ)⁻¹ H R, symmetrised; rows H: n×M, R: M×M.

    >>> r = torch.eye(2, dtype=torch.float64)
    >>> grown(r, torch.tensor([[3.0**0.5, 0.0]], dtype=torch.float64)).diagonal().round(decimals=9).tolist()
    [0.25, 1.0]
    """
    if len(rows) > len(inverse):
        return _direct(inverse, rows, 1.0)
    across = rows @ inverse
    gram = across @ rows.T
    gram.diagonal().add_(1.0)
    return _symmetric(inverse - across.T @ torch.cholesky_solve(across, torch.linalg.cholesky(gram)))


def shrunk(inverse: Tensor, rows: Tensor) -> Tensor:
    """(A − HᵀH)⁻¹ from R = A⁻¹:  R + R Hᵀ (I − H R Hᵀ)⁻¹ H R, symmetrised.

    Raises InputError when I − H R Hᵀ is not positive: rows that are not in A, or are removed a second time.

    >>> r = torch.eye(2, dtype=torch.float64)
    >>> h = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    >>> bool(torch.allclose(shrunk(grown(r, h), h), r))
    True
    """
    if len(rows) > len(inverse):
        return _direct(inverse, rows, -1.0)
    across = rows @ inverse
    gram = -(across @ rows.T)
    gram.diagonal().add_(1.0)
    _refuse_unless_inside(float(torch.linalg.eigvalsh(_symmetric(gram))[0]))
    return _symmetric(inverse + across.T @ torch.cholesky_solve(across, torch.linalg.cholesky(_symmetric(gram))))


def _direct(inverse: Tensor, rows: Tensor, sign: float) -> Tensor:
    """More rows than columns: change the M×M matrix itself and invert it again.

    I − H R Hᵀ and I − R^½ HᵀH R^½ have the same least eigenvalue below 1, so the check stays M×M.
    """
    if sign < 0:
        root = torch.linalg.cholesky(inverse)
        gram = -(root.T @ (rows.T @ rows) @ root)
        gram.diagonal().add_(1.0)
        _refuse_unless_inside(float(torch.linalg.eigvalsh(_symmetric(gram))[0]))
    gram = torch.cholesky_inverse(torch.linalg.cholesky(inverse)) + sign * (rows.T @ rows)
    return _symmetric(torch.cholesky_inverse(torch.linalg.cholesky(_symmetric(gram))))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _refuse_unless_inside(least: float) -> None:
    if not least > FLOOR:
        raise InputError(
            "These rows cannot be taken out: they were never learned, or were forgotten before "
            f"(least eigenvalue {least:.1e})."
        )


class Ridge:
    """W = (HᵀH + γI)⁻¹ HᵀY over the rows it holds; ``learn`` adds rows, ``forget`` removes them, exactly.

    Its whole state: R (M×M), W (M×K), γ and the number of rows. Columns of Y may be added with ``widen`` and removed
    with ``drop``. dtype: float64; float32 drifts after tens of requests. Raises UsageError unless γ > 0.

    Source: the recursions of ACU, arXiv 2505.12239, 2025.

    >>> h, y = torch.rand(6, 3, dtype=torch.float64), torch.rand(6, 2, dtype=torch.float64)
    >>> ridge = Ridge(3, 2, gamma=0.1)
    >>> ridge.learn(h, y)
    >>> ridge.forget(h[:2], y[:2])
    >>> bool(torch.allclose(ridge.weights, solve(h[2:], y[2:], 0.1)))
    True
    """

    def __init__(self, width: int, outputs: int = 0, *, gamma: float = 1.0, dtype: torch.dtype = torch.float64) -> None:
        if not gamma > 0:
            raise UsageError(f"gamma is {gamma}; it must be positive.")
        self.gamma, self.count = gamma, 0
        self.inverse = torch.eye(width, dtype=dtype) / gamma
        self.weights = torch.zeros(width, outputs, dtype=dtype)

    def learn(self, rows: Tensor, targets: Tensor) -> None:
        """R ← R − R Hᵀ(I + H R Hᵀ)⁻¹H R;  W ← W + R_new Hᵀ(Y − H W)."""
        rows, targets = self._checked(rows, targets)
        self.inverse = grown(self.inverse, rows)
        self.weights = self.weights + self.inverse @ (rows.T @ (targets - rows @ self.weights))
        self.count += len(rows)

    def forget(self, rows: Tensor, targets: Tensor) -> None:
        """R ← R + R Hᵀ(I − H R Hᵀ)⁻¹H R;  W ← W − R_new Hᵀ(Y − H W). Raises InputError for rows it does not hold."""
        rows, targets = self._checked(rows, targets)
        if len(rows) > self.count:
            raise InputError(f"{len(rows)} rows are to be forgotten, but only {self.count} were learned.")
        self.inverse = shrunk(self.inverse, rows)
        self.weights = self.weights - self.inverse @ (rows.T @ (targets - rows @ self.weights))
        self.count -= len(rows)

    def widen(self, outputs: int) -> None:
        """Columns for new targets, zero as the solution is for targets that were zero so far."""
        self.weights = torch.cat([self.weights, self.weights.new_zeros(len(self.weights), outputs)], 1)

    def drop(self, column: int) -> None:
        """Remove the column of a target no row has any more."""
        kept = [i for i in range(self.weights.shape[1]) if i != column]
        self.weights = self.weights[:, kept]

    def _checked(self, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if rows.ndim != 2 or rows.shape[1] != len(self.inverse) or targets.shape != (len(rows), self.weights.shape[1]):
            raise UsageError(
                f"The head takes rows N×{len(self.inverse)} and targets N×{self.weights.shape[1]}, not "
                f"{'×'.join(map(str, rows.shape))} and {'×'.join(map(str, targets.shape))}."
            )
        return rows.to(self.inverse), targets.to(self.inverse)


def solve(rows: Tensor, targets: Tensor, gamma: float) -> Tensor:
    """The joint solution from scratch: (HᵀH + γI)⁻¹ HᵀY, M×K."""
    gram = rows.T @ rows
    gram.diagonal().add_(gamma)
    return torch.cholesky_solve(rows.T @ targets, torch.linalg.cholesky(gram))
