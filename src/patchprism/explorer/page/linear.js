// Linear algebra for the fit of a head, on flat arrays. Four sums are computed at a time, because they do not wait for each
// other, and the numbers that they share are loaded once.

// out[to + j] = bias + weights . row j, for up to four rows of `rows` that start at `at`, and weights that start at `from`.
export function rowDots(rows, at, many, width, weights, from, bias, out, to) {
  if (many === 4) {
    const [second, third, fourth] = [at + width, at + 2 * width, at + 3 * width];
    let [a, b, c, e] = [bias, bias, bias, bias];
    for (let d = 0; d < width; d++) {
      const weight = weights[from + d];
      a += weight * rows[at + d];
      b += weight * rows[second + d];
      c += weight * rows[third + d];
      e += weight * rows[fourth + d];
    }
    out[to] = a;
    out[to + 1] = b;
    out[to + 2] = c;
    out[to + 3] = e;
    return;
  }
  for (let j = 0; j < many; j++) {
    let sum = bias;
    for (let d = 0, i = at + j * width; d < width; d++, i++) sum += weights[from + d] * rows[i];
    out[to + j] = sum;
  }
}

// Adds up to four rows to sums[to + d], each multiplied by its pull.
export function rowSums(rows, at, many, width, pulls, from, sums, to) {
  if (many === 4) {
    const [second, third, fourth] = [at + width, at + 2 * width, at + 3 * width];
    const [a, b, c, e] = [pulls[from], pulls[from + 1], pulls[from + 2], pulls[from + 3]];
    for (let d = 0; d < width; d++) sums[to + d] += a * rows[at + d] + b * rows[second + d] + c * rows[third + d] + e * rows[fourth + d];
    return;
  }
  for (let j = 0; j < many; j++) {
    const pull = pulls[from + j];
    for (let d = 0, i = at + j * width; d < width; d++, i++) sums[to + d] += pull * rows[i];
  }
}

// The lower triangle of X X', where X is (size, m), row by row.
export function gram(x, size, m) {
  const out = new Float64Array(size * size);
  for (let i = 0; i < size; i += 2) {
    const a = i * m;
    const b = i + 1 < size ? a + m : a;
    for (let j = i; j < size; j += 2) {
      const c = j * m;
      const e = j + 1 < size ? c + m : c;
      let [ac, ae, bc, be] = [0, 0, 0, 0];
      for (let k = 0; k < m; k++) {
        const [p, q, r, s] = [x[a + k], x[b + k], x[c + k], x[e + k]];
        ac += p * r;
        ae += p * s;
        bc += q * r;
        be += q * s;
      }
      out[j * size + i] = ac;
      if (e > c) out[(j + 1) * size + i] = ae;
      if (b > a) out[j * size + i + 1] = bc;
      if (b > a && e > c) out[(j + 1) * size + i + 1] = be;
    }
  }
  return out;
}

// Replaces the lower triangle of a positive definite matrix by its Cholesky factor.
export function cholesky(matrix, size) {
  for (let i = 0; i < size; i++) {
    const a = i * size;
    for (let j = 0; j <= i; j++) {
      const b = j * size;
      let [s, t] = [matrix[a + j], 0];
      let k = 0;
      for (; k + 1 < j; k += 2) {
        s -= matrix[a + k] * matrix[b + k];
        t -= matrix[a + k + 1] * matrix[b + k + 1];
      }
      if (k < j) s -= matrix[a + k] * matrix[b + k];
      matrix[a + j] = i === j ? Math.sqrt(Math.max(s + t, 1e-9)) : (s + t) / matrix[b + j];
    }
  }
  return matrix;
}

// Replaces b by the solution of L L' x = b, where L is the result of cholesky.
export function solveCholesky(factor, b, size) {
  for (let i = 0; i < size; i++) {
    let sum = b[i];
    for (let k = 0, a = i * size; k < i; k++) sum -= factor[a + k] * b[k];
    b[i] = sum / factor[i * size + i];
  }
  for (let i = size - 1; i >= 0; i--) {
    const value = (b[i] /= factor[i * size + i]);
    for (let k = 0, a = i * size; k < i; k++) b[k] -= factor[a + k] * value;
  }
}
