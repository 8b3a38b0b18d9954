/* Sinkhorn sweeps in the exponential domain, float32. One read of the kernel serves both halves of an iteration: a row's
 * scaling is known once its own product is complete, and the row is still in cache when it joins the column sums.
 *
 * Compiled on first use by native.py; every function has a counterpart in plain PyTorch. No NaN is hidden: a product
 * that under- or overflows gives an infinite scaling, which the caller finds.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROWS 4
#define LINE 16 /* floats of a cache line */
#define CACHED (1 << 19) /* floats that stay near a core from one sweep to the next */
/* Column sums are collected over this many rows before they join the total, which bounds the growth of rounding. */
#define BLOCK 64

/* e^x for |x| <= 87 within 1 ulp or so: Cody and Waite's reduction and the polynomial of
 * Cephes (Moshier); written for the vectoriser. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float k = rintf(x * 1.44269504088896341f);
    /* fmaf, so that no compiler merges the two parts of log 2. */
    const float r = fmaf(-k, -2.12194440e-4f, fmaf(-k, 0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    p = fmaf(p, r * r, r);
    int32_t bits = ((int32_t)k + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power + power;
}

/* weight * product^-power, mixed geometrically with the previous scaling when over-relaxed. */
static inline float scaled(float weight, float product, float power, float previous, float relaxation) {
    float next = power == 1.0f ? weight / product : weight * powf(product, -power);
    if (relaxation != 1.0f && previous > 0.0f) next = powf(previous, 1.0f - relaxation) * powf(next, relaxation);
    return next;
}

/* Products of rows with v. Four rows together are four streams of memory: measured 1.3 times as fast as one after the
 * other where the kernel is larger than the caches. */
static inline void multiply_rows(const float *K, int64_t stride, int64_t rows, int64_t m, const float *v, float *product) {
    if (rows == ROWS) {
        const float *k0 = K, *k1 = K + stride, *k2 = K + 2 * stride, *k3 = K + 3 * stride;
        float p0 = 0.0f, p1 = 0.0f, p2 = 0.0f, p3 = 0.0f;
        for (int64_t j = 0; j < m; j++) {
            p0 += k0[j] * v[j];
            p1 += k1[j] * v[j];
            p2 += k2[j] * v[j];
            p3 += k3[j] * v[j];
        }
        product[0] = p0, product[1] = p1, product[2] = p2, product[3] = p3;
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        product[r] = 0.0f;
        for (int64_t j = 0; j < m; j++) product[r] += K[r * stride + j] * v[j];
    }
}

static inline void add_four(const float *K, int64_t stride, int64_t m, const float *u, float *sum) {
    const float *k0 = K, *k1 = K + stride, *k2 = K + 2 * stride, *k3 = K + 3 * stride;
    const float u0 = u[0], u1 = u[1], u2 = u[2], u3 = u[3];
    for (int64_t j = 0; j < m; j++) sum[j] += (k0[j] * u0 + k1[j] * u1) + (k2[j] * u2 + k3[j] * u3);
}

/* sum += K^T u. The rows come from cache and memory has nothing to do meanwhile: with far set, it fetches the first
 * quarter of the next four rows. */
static inline void add_rows(const float *K, int64_t stride, int64_t rows, int64_t m, const float *u, float *sum, int far) {
    if (rows < ROWS) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < m; j++) sum[j] += K[r * stride + j] * u[r];
        return;
    }
    int64_t j = 0;
    if (far)
        for (; j + 4 * LINE <= m; j += 4 * LINE) {
            for (int64_t r = 0; r < ROWS; r++) __builtin_prefetch(K + (ROWS + r) * stride + j / 4, 0, 2);
            add_four(K + j, stride, 4 * LINE, u, sum + j);
        }
    add_four(K + j, stride, m - j, u, sum + j);
}

/* k = exp(exponent k), and its product with v. */
static inline float exponentiate_row(float *k, int64_t m, const float *v, float exponent) {
    float product = 0.0f;
    for (int64_t j = 0; j < m; j++) {
        const float e = exponential(exponent * k[j]);
        k[j] = e;
        product += e * v[j];
    }
    return product;
}

/* Rows of a kernel: product with v, new u, and K^T u added to column. With exponent != 0 K holds inner products and
 * becomes exp(exponent * K) on the way. */
void sweep_rows(float *K, int64_t stride, int64_t n, int64_t m, const float *weight, const float *v, float *u,
                float *column, float *scratch, float power, float relaxation, float exponent) {
    const int far = exponent == 0.0f && n * m > CACHED;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        memset(scratch, 0, (size_t)m * sizeof(float));
        for (int64_t i = start; i < stop; i += ROWS) {
            const int64_t rows = i + ROWS < stop ? ROWS : stop - i;
            float product[ROWS];
            if (exponent != 0.0f)
                for (int64_t r = 0; r < rows; r++) product[r] = exponentiate_row(K + (i + r) * stride, m, v, exponent);
            else
                multiply_rows(K + i * stride, stride, rows, m, v, product);
            for (int64_t r = 0; r < rows; r++)
                /* A token without mass sends nothing, whatever its products. */
                u[i + r] = weight[i + r] > 0.0f ? scaled(weight[i + r], product[r], power, u[i + r], relaxation) : 0.0f;
            add_rows(K + i * stride, stride, rows, m, u + i, scratch, far && i + 2 * ROWS <= n);
        }
        for (int64_t j = 0; j < m; j++) column[j] += scratch[j];
    }
}

/* ---- Kernels stored as halves -------------------------------------------------------------------------------------
 *
 * A float is its upper 16 bits (a bfloat16, cut and not rounded) and its lower 16, which are less than 2^-7 of it. A
 * split row of m floats keeps its place: h = m / 2 words with the upper bits of elements k and k + h, h words with their
 * lower bits, and the last float of an odd row as it was. Nothing is lost. halves.py says when the upper bits suffice.
 */
static inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

#define FETCH 1
#define UPPER 0xffff0000u
#define FIRST(word) as_float((word) << 16)
#define SECOND(word) as_float((word) & UPPER)

static inline void split_row(float *row, int64_t m, float *spare) {
    const int64_t h = m / 2;
    memcpy(spare, row, (size_t)m * sizeof(float));
    uint32_t *upper = (uint32_t *)row, *lower = upper + h;
    for (int64_t k = 0; k < h; k++) {
        const uint32_t first = as_bits(spare[k]), second = as_bits(spare[k + h]);
        upper[k] = (first >> 16) | (second & UPPER);
        lower[k] = (first & ~UPPER) | (second << 16);
    }
}

static inline void join_row(float *row, int64_t m, float *spare) {
    const int64_t h = m / 2;
    memcpy(spare, row, (size_t)m * sizeof(float));
    const uint32_t *upper = (const uint32_t *)spare, *lower = upper + h;
    for (int64_t k = 0; k < h; k++) {
        row[k] = as_float((upper[k] << 16) | (lower[k] & ~UPPER));
        row[k + h] = as_float((upper[k] & UPPER) | (lower[k] >> 16));
    }
}

/* multiply_rows with the upper bits of the kernel only. */
static inline void multiply_halves(const float *K, int64_t stride, int64_t rows, int64_t m, const float *v, float *product) {
    const int64_t h = m / 2;
    for (int64_t r = 0; r < rows; r++) product[r] = m % 2 ? K[r * stride + m - 1] * v[m - 1] : 0.0f;
    if (rows == ROWS) {
        const uint32_t *k0 = (const uint32_t *)K, *k1 = k0 + stride, *k2 = k1 + stride, *k3 = k2 + stride;
        float p0 = 0.0f, p1 = 0.0f, p2 = 0.0f, p3 = 0.0f;
        for (int64_t k = 0; k < h; k++) {
            p0 += FIRST(k0[k]) * v[k] + SECOND(k0[k]) * v[k + h];
            p1 += FIRST(k1[k]) * v[k] + SECOND(k1[k]) * v[k + h];
            p2 += FIRST(k2[k]) * v[k] + SECOND(k2[k]) * v[k + h];
            p3 += FIRST(k3[k]) * v[k] + SECOND(k3[k]) * v[k + h];
        }
        product[0] += p0, product[1] += p1, product[2] += p2, product[3] += p3;
        return;
    }
    for (int64_t r = 0; r < rows; r++) {
        const uint32_t *word = (const uint32_t *)(K + r * stride);
        for (int64_t k = 0; k < h; k++) product[r] += FIRST(word[k]) * v[k] + SECOND(word[k]) * v[k + h];
    }
}

static inline void add_four_halves(const uint32_t *word, int64_t stride, int64_t count, const float *u, float *low, float *high) {
    const uint32_t *k0 = word, *k1 = k0 + stride, *k2 = k1 + stride, *k3 = k2 + stride;
    const float u0 = u[0], u1 = u[1], u2 = u[2], u3 = u[3];
    for (int64_t k = 0; k < count; k++) {
        low[k] += (FIRST(k0[k]) * u0 + FIRST(k1[k]) * u1) + (FIRST(k2[k]) * u2 + FIRST(k3[k]) * u3);
        high[k] += (SECOND(k0[k]) * u0 + SECOND(k1[k]) * u1) + (SECOND(k2[k]) * u2 + SECOND(k3[k]) * u3);
    }
}

/* add_rows with the upper bits of the kernel only. */
static inline void add_halves(const float *K, int64_t stride, int64_t rows, int64_t m, const float *u, float *sum, int far) {
    const int64_t h = m / 2;
    const uint32_t *word = (const uint32_t *)K;
    if (m % 2)
        for (int64_t r = 0; r < rows; r++) sum[m - 1] += K[r * stride + m - 1] * u[r];
    if (rows < ROWS) {
        for (int64_t r = 0; r < rows; r++)
            for (int64_t k = 0; k < h; k++) {
                sum[k] += FIRST(word[r * stride + k]) * u[r];
                sum[k + h] += SECOND(word[r * stride + k]) * u[r];
            }
        return;
    }
    int64_t k = 0;
    if (far)
        for (; k + 4 * LINE <= h; k += 4 * LINE) {
            for (int64_t r = 0; r < ROWS; r++)
                for (int64_t line = 0; line < FETCH; line++)
                    __builtin_prefetch(word + (ROWS + r) * stride + k / 4 * FETCH + line * LINE, 0, 2);
            add_four_halves(word + k, stride, 4 * LINE, u, sum + k, sum + h + k);
        }
    add_four_halves(word + k, stride, h - k, u, sum + k, sum + h + k);
}

enum { SPLIT, HALVES, JOIN };

/* Sweeps over rows of a kernel, each like sweep_rows without over-relaxation. SPLIT reads floats and leaves halves, with
 * the ratio of each row's product to that of its upper bits, and K^T u of the upper bits in halved. HALVES reads upper
 * bits and applies those ratios to rows; the caller does so to column. JOIN makes floats of halves again and reads them.
 * spare holds 3 m floats. */
void sweep_halves(float *K, int64_t stride, int64_t n, int64_t m, const float *weight, const float *v, float *u,
                  float *column, float *halved, float *ratio, float *spare, float power, int64_t mode) {
    float *sums = spare + m, *upper_sums = spare + 2 * m;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t stop = start + BLOCK < n ? start + BLOCK : n;
        memset(sums, 0, (size_t)(2 * m) * sizeof(float));
        for (int64_t i = start; i < stop; i += ROWS) {
            const int64_t rows = i + ROWS < stop ? ROWS : stop - i;
            float *four = K + i * stride, product[ROWS], upper[ROWS];
            if (mode == HALVES) {
                multiply_halves(four, stride, rows, m, v, product);
                for (int64_t r = 0; r < rows; r++) product[r] *= ratio[i + r];
            } else {
                for (int64_t r = 0; r < rows && mode == JOIN; r++) join_row(four + r * stride, m, spare);
                multiply_rows(four, stride, rows, m, v, product);
            }
            for (int64_t r = 0; r < rows; r++)
                u[i + r] = weight[i + r] > 0.0f ? scaled(weight[i + r], product[r], power, 0.0f, 1.0f) : 0.0f;
            if (mode == HALVES)
                add_halves(four, stride, rows, m, u + i, sums, i + 2 * ROWS <= n);
            else
                add_rows(four, stride, rows, m, u + i, sums, 0);
            if (mode != SPLIT) continue;
            for (int64_t r = 0; r < rows; r++) split_row(four + r * stride, m, spare);
            multiply_halves(four, stride, rows, m, v, upper);
            for (int64_t r = 0; r < rows; r++) ratio[i + r] = product[r] / upper[r];
            add_halves(four, stride, rows, m, u + i, upper_sums, 0);
        }
        for (int64_t j = 0; j < m; j++) column[j] += sums[j];
        for (int64_t j = 0; j < m && mode == SPLIT; j++) halved[j] += upper_sums[j];
    }
}

static int64_t length(const float *weight, int64_t n) {
    while (n > 0 && weight[n - 1] == 0.0f) n--;
    return n;
}

/* count iterations on each of B stored kernels (N x M). u and v hold the previous scalings on entry (u may be zero, then
 * its first update is not relaxed) and the last on exit; scratch holds 2 M floats. */
void iterate(float *K, int64_t B, int64_t N, int64_t M, const float *weight_x, const float *weight_y, float *u, float *v,
             float *scratch, const float *power, float relaxation, int64_t count) {
    for (int64_t pair = 0; pair < B; pair++, K += N * M, weight_x += N, weight_y += M, u += N, v += M) {
        const int64_t n = length(weight_x, N), m = length(weight_y, M);
        float *column = scratch + M;
        for (int64_t step = 0; step < count; step++) {
            memset(column, 0, (size_t)m * sizeof(float));
            sweep_rows(K, M, n, m, weight_x, v, u, column, scratch, power[pair], relaxation, 0.0f);
            /* The last update is plain, so that the column masses of the plan are exact. */
            const float mix = step + 1 < count ? relaxation : 1.0f;
            for (int64_t j = 0; j < m; j++)
                v[j] = weight_y[j] > 0.0f ? scaled(weight_y[j], column[j], power[pair], v[j], mix) : 0.0f;
        }
    }
}

/* values = exp(factor * values) in place, for |factor * values| <= 87. */
void exponentiate(float *values, int64_t size, float factor) {
    for (int64_t i = 0; i < size; i++) values[i] = exponential(factor * values[i]);
}

/* Unit vectors and inverse lengths of rows of x; zero rows, and rows outside the mask (which may be NULL), stay zero. */
void unit_rows(const float *x, const uint8_t *mask, int64_t rows, int64_t width, float *unit, float *inverse) {
    for (int64_t r = 0; r < rows; r++, x += width, unit += width) {
        inverse[r] = 0.0f;
        if (mask && !mask[r]) {
            memset(unit, 0, (size_t)width * sizeof(float));
            continue;
        }
        float squares = 0.0f;
        for (int64_t d = 0; d < width; d++) squares += x[d] * x[d];
        float scale = 1.0f;
        if (!(squares > 1e-30f && squares < 1e30f)) {
            /* Too long or too short to be squared: divide by the largest entry first. NaN stays NaN. */
            float largest = 0.0f;
            for (int64_t d = 0; d < width; d++) largest = fabsf(x[d]) <= largest ? largest : fabsf(x[d]);
            scale = largest == 0.0f ? 1.0f : largest;
            squares = 0.0f;
            for (int64_t d = 0; d < width; d++) squares += (x[d] / scale) * (x[d] / scale);
        }
        const float norm = squares == 0.0f ? 1.0f : sqrtf(squares), factor = 1.0f / norm;
        if (squares != 0.0f) inverse[r] = (1.0f / norm) * (1.0f / scale);
        if (scale == 1.0f)
            for (int64_t d = 0; d < width; d++) unit[d] = x[d] * factor;
        else
            for (int64_t d = 0; d < width; d++) unit[d] = x[d] / scale * factor;
    }
}

/* product = -(product - inner unit) inverse, the cosine's gradient. */
void pull_back_rows(float *product, const float *unit, const float *inverse, int64_t rows, int64_t width,
                    const float *inner) {
    for (int64_t r = 0; r < rows; r++, product += width, unit += width) {
        const float along = inner[r], factor = -inverse[r];
        for (int64_t d = 0; d < width; d++) product[d] = factor * (product[d] - along * unit[d]);
    }
}

/* inner = <left, right> of each row. */
void inner_rows(const float *left, const float *right, int64_t rows, int64_t width, float *inner) {
    for (int64_t r = 0; r < rows; r++, left += width, right += width) {
        float sum = 0.0f;
        for (int64_t d = 0; d < width; d++) sum += left[d] * right[d];
        inner[r] = sum;
    }
}
