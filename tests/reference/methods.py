"""Each method in its published form, unfused, on a copy of W: the reference of the packed trainer.

In-place residual forms (PiSSA, MiLoRA, ...) subtract s B0 A0 from the copied weight and train A and B themselves, as
published. Random numbers come from `draw`, a torch generator at the start of the site's stream; `facts` are what some
methods take from data (reference.samples) or from the other sites.
"""

import math

import torch
from torch import nn
from torch.nn.functional import linear


class LowRankLinear(nn.Module):
    """y = W' x + b + s B (A x), with A and B trained and W' frozen."""

    def __init__(self, weight, bias, A, B, scaling):
        super().__init__()
        self.weight, self.bias, self.scaling = weight, bias, scaling
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def forward(self, x):
        return linear(x, self.weight, self.bias) + self.scaling * linear(linear(x, self.A), self.B)


class DoraLinear(nn.Module):
    """y = (m / ||W' + s B A||) (W' + s B A) x + b by rows, the norm without gradient; A, B and m trained."""

    def __init__(self, weight, bias, A, B, scaling):
        super().__init__()
        self.weight, self.bias, self.scaling = weight, bias, scaling
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.m = nn.Parameter((weight + scaling * B @ A).norm(dim=1))

    def forward(self, x):
        direction = self.weight + self.scaling * self.B @ self.A
        norm = direction.detach().norm(dim=1)
        return linear(x, (self.m / norm)[:, None] * direction, self.bias)


class VeraLinear(nn.Module):
    """y = W x + bias + b * (B (d * (A x))), with b and d trained."""

    def __init__(self, weight, bias, A, B):
        super().__init__()
        self.weight, self.bias, self.frozen_A, self.frozen_B = weight, bias, A, B
        self.b = nn.Parameter(torch.zeros(weight.shape[0], dtype=weight.dtype))
        self.d = nn.Parameter(torch.full((A.shape[0],), 0.1, dtype=weight.dtype))

    def forward(self, x):
        return linear(x, self.weight, self.bias) + self.b * linear(self.d * linear(x, self.frozen_A), self.frozen_B)


class GraloraLinear(nn.Module):
    """y = (W + s D) x + bias, D of 2 x 2 blocks B_jn A_nj, with all A and B trained."""

    def __init__(self, weight, bias, A, B, scaling):
        super().__init__()
        self.weight, self.bias, self.scaling = weight, bias, scaling
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)

    def forward(self, x):
        rows = [torch.cat([self.B[j, n] @ self.A[n, j] for n in range(2)], dim=1) for j in range(2)]
        return linear(x, self.weight + self.scaling * torch.cat(rows), self.bias)


class BoftLinear(nn.Module):
    """y = diag(s) W M_0^T M_1^T x + bias, M_i = P_i diag(Q_i1, Q_i2, ..) P_i^T written out, with R and s trained."""

    def __init__(self, weight, bias, block_size):
        super().__init__()
        self.weight, self.bias = weight, bias
        num_out, num_in = weight.shape
        self.R = nn.Parameter(torch.zeros(2, num_in // block_size, block_size, block_size, dtype=weight.dtype))
        self.s = nn.Parameter(torch.ones(num_out, dtype=weight.dtype))

    def rotation(self):
        """M_1 M_0; place i of a pair of blocks, counted in halves of a block, is place 2 (i mod 2) + i div 2 in P_1."""
        _, _, size, _ = self.R.shape
        num_in, half = self.weight.shape[1], size // 2
        places = torch.arange(num_in).view(-1, 2, 2, half).transpose(1, 2).flatten()
        rotation = torch.eye(num_in, dtype=self.weight.dtype)
        for R, order in zip(self.R, (torch.arange(num_in), places), strict=True):
            one = torch.eye(size, dtype=R.dtype)
            skew = 0.5 * (R - R.transpose(1, 2))
            blocks = torch.block_diag(*[(one - S) @ torch.linalg.inv(one + S) for S in skew])
            P = torch.eye(num_in, dtype=R.dtype)[order]
            rotation = P @ blocks @ P.T @ rotation
        return rotation

    def forward(self, x):
        return self.s * linear(x @ self.rotation(), self.weight) + (0 if self.bias is None else self.bias)


class RandloraLinear(nn.Module):
    """y = W x + bias + s sum_k B_k diag(l_k) A diag(g_k) x, term by term, or its transpose; with l and g trained.

    Which column of the B_k side by side is a term's is PEFT's: that of row a and term k is a K + k.
    """

    def __init__(self, weight, bias, A, B, scaling):
        super().__init__()
        self.weight, self.bias, self.scaling, self.frozen_A, self.frozen_B = weight, bias, scaling, A, B
        rank, num_terms, small = A.shape[0], B.shape[1], A.shape[1]
        self.l = nn.Parameter(torch.zeros(rank, num_terms, dtype=weight.dtype))
        self.g = nn.Parameter(torch.full((num_terms, small), 1 / max(num_terms, small), dtype=weight.dtype))

    def forward(self, x):
        num_terms = self.l.shape[1]
        columns = self.frozen_B.reshape(len(self.frozen_B), -1)
        terms = [
            columns[:, k::num_terms] @ torch.diag(self.l[:, k]) @ self.frozen_A @ torch.diag(self.g[k])
            for k in range(num_terms)
        ]
        change = sum(terms)
        change = change if self.weight.shape[0] >= self.weight.shape[1] else change.T
        return linear(x, self.weight + self.scaling * change, self.bias)


class FullLinear(nn.Module):
    """y = W x + b with W trained."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x):
        return linear(x, self.weight, self.bias)


def uniform(draw, bound, *shape):
    """Numbers from U(-bound, bound)."""
    return (2 * torch.rand(shape, generator=draw, dtype=torch.float64) - 1) * bound


def normal(draw, std, *shape):
    """Numbers from N(0, std^2)."""
    return std * torch.randn(shape, generator=draw, dtype=torch.float64)


def randomized_svd(weight, rank, draw):
    """Halko et al. 2011, algorithm 4.4, four iterations."""
    Q, _ = torch.linalg.qr(weight @ normal(draw, 1.0, weight.shape[1], rank))
    for _ in range(4):
        Z, _ = torch.linalg.qr(weight.T @ Q)
        Q, _ = torch.linalg.qr(weight @ Z)
    U, S, Vh = torch.linalg.svd(Q.T @ weight, full_matrices=False)
    return Q @ U, S, Vh


def factors(method, weight, rank, scaling, draw, facts):
    """A0 and B0 of a low-rank method, and whether s B0 A0 is taken off the weight."""
    m, n = weight.shape
    zero_A, zero_B = torch.zeros(rank, n, dtype=weight.dtype), torch.zeros(m, rank, dtype=weight.dtype)
    if method == "lora":
        return uniform(draw, n**-0.5, rank, n), zero_B, False
    if method == "init_a":
        return normal(draw, n**-0.5, rank, n), zero_B, False
    if method == "init_b":
        return zero_A, normal(draw, rank**-0.5, m, rank), False
    if method == "init_ab":
        return uniform(draw, n**-0.5, rank, n), uniform(draw, n**-0.5, m, rank), True
    if method == "olora":
        Q, R = torch.linalg.qr(weight)
        return R[:rank], Q[:, :rank], True
    if method == "eva":
        inputs = facts["inputs"] - facts["inputs"].mean(0)
        return torch.linalg.svd(inputs, full_matrices=False)[2][:rank], zero_B, False
    if method == "lora_ga":
        U, _, Vh = torch.linalg.svd(facts["gradient"], full_matrices=False)
        scale = m**0.25 / 16**0.5
        return scale * Vh[:rank], scale * U[:, rank : 2 * rank], True
    if method == "pissa_randomized":
        U, S, Vh = randomized_svd(weight, rank, draw)
    else:
        U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
        pick = slice(0, rank) if method == "pissa" else slice(len(S) - rank, len(S))
        U, S, Vh = U[:, pick], S[pick], Vh[pick]
    root = torch.diag(torch.sqrt(S / scaling))
    return root @ Vh, U @ root, True


def adapted(method, weight, bias, rank, scaling, draw=None, facts=None):
    """Return the method's module on a copy of `weight` [O, I]."""
    weight = weight.clone()
    m, n = weight.shape
    if method == "full":
        return FullLinear(weight, bias)
    if method == "vera":
        largest_m, largest_n = facts["largest"]
        A = uniform(draw, (6 / largest_n) ** 0.5, rank, largest_n)
        B = uniform(draw, (6 / rank) ** 0.5, largest_m, rank)
        return VeraLinear(weight, bias, A[:, :n], B[:m])
    if method == "boft":
        return BoftLinear(weight, bias, rank)
    if method == "randlora":
        small, large = min(facts["largest"]), max(facts["largest"])
        A = uniform(draw, 3**0.5, rank, small).bfloat16().to(weight.dtype)
        B = uniform(draw, 3**0.5, large, math.ceil(small / rank), rank).bfloat16().to(weight.dtype)
        A, B = A[:, : min(m, n)], B[: max(m, n), : math.ceil(min(m, n) / rank)]
        return RandloraLinear(weight, bias, A, B, scaling)
    if method == "gralora":
        A = uniform(draw, (n // 2) ** -0.5, 2, 2, rank // 2, n // 2)
        return GraloraLinear(weight, bias, A, torch.zeros(2, 2, m // 2, rank // 2, dtype=weight.dtype), scaling)
    form, _, start = method.partition("+") if method.startswith("dora") else ("lora", "", method)
    A, B, is_residual = factors(start or "lora", weight, rank, scaling, draw, facts)
    if is_residual:
        weight = weight - scaling * B @ A
    return {"lora": LowRankLinear, "dora": DoraLinear}[form](weight, bias, A.clone(), B.clone(), scaling)
