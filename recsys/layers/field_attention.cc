// An interacting layer of AutoInt and its gradient, for recsys/layers/field_attention.py.
//
// LANES rows at a time, one in each lane of a vector: the matrices of a row are too small to fill
// vectors by themselves, and what lies between them stays in the cache. HEAD_DIM is given when
// this is compiled. Shapes, row by row: x [N][E], weight [4][H][HEAD_DIM][E] (query, key, value,
// residual), y [N][H][HEAD_DIM]. `work` holds `work_floats` floats, aligned to a vector.

#include <cstdint>

namespace {

// As many as a register holds: two registers a value spill, at four times the time.
#ifdef __AVX512F__
constexpr long LANES = 16;
#else
constexpr long LANES = 8;
#endif
constexpr long A = HEAD_DIM;
typedef float V __attribute__((vector_size(4 * LANES)));
typedef int32_t I __attribute__((vector_size(4 * LANES)));

// Of x <= 0, by the first eight terms of its series around the nearest power of 2; NaN stays NaN.
inline V exponential(V x) {
    x = -87.0f > x ? V{} - 87.0f : x;
    I power = __builtin_convertvector(x * 1.44269504f - 0.5f, I);
    V whole = __builtin_convertvector(power, V);
    V f = x - whole * 0.693359375f + whole * 2.12194440e-4f;  // x - power * log(2), in two parts
    V y = f * (1 / 5040.0f) + 1 / 720.0f;
    y = y * f + 1 / 120.0f;
    y = y * f + 1 / 24.0f;
    y = y * f + 1 / 6.0f;
    y = y * f + 0.5f;
    y = y * f + 1.0f;
    y = y * f + 1.0f;
    I bits = (power + 127) << 23;  // 2^power
    return y * (V)bits;
}

void load(V *block, const float *rows, long count, long size) {
    for (long i = 0; i < size; i++) {
        V values = {};
        for (long lane = 0; lane < count; lane++) values[lane] = rows[lane * size + i];
        block[i] = values;
    }
}

void store(const V *block, float *rows, long count, long size) {
    for (long lane = 0; lane < count; lane++)
        for (long i = 0; i < size; i++) rows[lane * size + i] = block[i][lane];
}

// out [N][A] = x weight^T, of one part and head.
void project(V *out, const V *x, const float *weight, long N, long E, float scale) {
    for (long n = 0; n < N; n++) {
        V sum[A] = {};
        for (long e = 0; e < E; e++)
            for (long a = 0; a < A; a++) sum[a] += weight[a * E + e] * x[n * E + e];
        for (long a = 0; a < A; a++) out[n * A + a] = sum[a] * scale;
    }
}

// Adds to the gradients of x [N][E] and weight [A][E] what `grad` [N][A] of `project` brings.
void project_backward(V *dx, V *dweight, const V *grad, const V *x, const float *weight, long N,
                      long E) {
    for (long n = 0; n < N; n++)
        for (long e = 0; e < E; e++) {
            V sum = dx[n * E + e];
            for (long a = 0; a < A; a++) sum += weight[a * E + e] * grad[n * A + a];
            dx[n * E + e] = sum;
        }
    for (long e = 0; e < E; e++) {
        V sum[A];
        for (long a = 0; a < A; a++) sum[a] = dweight[a * E + e];
        for (long n = 0; n < N; n++)
            for (long a = 0; a < A; a++) sum[a] += grad[n * A + a] * x[n * E + e];
        for (long a = 0; a < A; a++) dweight[a * E + e] = sum[a];
    }
}

// weights [N]: how much a field attends to each, times what is returned.
inline V attend(V *weights, const V *query, const V *key, long N) {
    V top = V{} - 3.4e38f;
    for (long n = 0; n < N; n++) {
        V inner = {};
        for (long a = 0; a < A; a++) inner += query[a] * key[n * A + a];
        weights[n] = inner;
        top = inner > top ? inner : top;
    }
    V sum = {};
    for (long n = 0; n < N; n++) sum += weights[n] = exponential(weights[n] - top);
    return 1.0f / sum;
}

// The gradients [N][A] of query, key and value of one head, from that of what it mixed.
void attend_backward(V *dquery, V *dkey, V *dvalue, const V *grad, const V *query, const V *key,
                     const V *value, V *weights, V *inner, long N) {
    for (long i = 0; i < N * A; i++) dkey[i] = dvalue[i] = V{};
    for (long m = 0; m < N; m++) {
        const V *q = query + m * A, *g = grad + m * A;
        V share = attend(weights, q, key, N), mean = {}, sum[A] = {};
        for (long n = 0; n < N; n++) {
            V weight = weights[n] *= share, dweight = {};
            for (long a = 0; a < A; a++) {
                dweight += g[a] * value[n * A + a];
                dvalue[n * A + a] += weight * g[a];
            }
            mean += weight * dweight;
            inner[n] = dweight;
        }
        for (long n = 0; n < N; n++) {
            V dinner = weights[n] * (inner[n] - mean);
            for (long a = 0; a < A; a++) {
                sum[a] += dinner * key[n * A + a];
                dkey[n * A + a] += dinner * q[a];
            }
        }
        for (long a = 0; a < A; a++) dquery[m * A + a] = sum[a];
    }
}

inline long block_size(long left) { return left < LANES ? left : LANES; }

}  // namespace

extern "C" long work_floats(long N, long E, long H) {
    return LANES * (2 * N * E + 2 * N * H * A + 7 * N * A + 2 * N + 4 * H * A * E);
}

extern "C" void forward(const float *x, const float *weight, float *y, long rows, long N, long E,
                        long H, float scale, V *work) {
    V *x_block = work, *y_block = x_block + N * E, *query = y_block + N * H * A;
    V *key = query + N * A, *value = key + N * A, *residual = value + N * A;
    V *weights = residual + N * A;
    const long part = H * A * E;
    for (long row = 0; row < rows; row += LANES) {
        const long count = block_size(rows - row);
        load(x_block, x + row * N * E, count, N * E);
        for (long h = 0; h < H; h++) {
            const float *own = weight + h * A * E;
            project(query, x_block, own, N, E, scale);
            project(key, x_block, own + part, N, E, 1);
            project(value, x_block, own + 2 * part, N, E, 1);
            project(residual, x_block, own + 3 * part, N, E, 1);
            for (long m = 0; m < N; m++) {
                V share = attend(weights, query + m * A, key, N), mixed[A] = {};
                for (long n = 0; n < N; n++)
                    for (long a = 0; a < A; a++) mixed[a] += weights[n] * value[n * A + a];
                for (long a = 0; a < A; a++) {
                    V sum = mixed[a] * share + residual[m * A + a];
                    y_block[(m * H + h) * A + a] = 0.0f > sum ? V{} : sum;
                }
            }
        }
        store(y_block, y + row * N * H * A, count, N * H * A);
    }
}

// dweight [4][H][A][E] is added to; dx is written.
extern "C" void backward(const float *x, const float *weight, const float *y, const float *dy,
                         float *dx, float *dweight, long rows, long N, long E, long H, float scale,
                         V *work) {
    const long D = H * A, part = H * A * E;
    V *x_block = work, *dx_block = x_block + N * E, *y_block = dx_block + N * E;
    V *dy_block = y_block + N * D, *query = dy_block + N * D, *key = query + N * A;
    V *value = key + N * A, *grad = value + N * A, *dquery = grad + N * A;
    V *dkey = dquery + N * A, *dvalue = dkey + N * A, *weights = dvalue + N * A;
    V *inner = weights + N, *dweights = inner + N;
    for (long i = 0; i < 4 * part; i++) dweights[i] = V{};
    for (long row = 0; row < rows; row += LANES) {
        const long count = block_size(rows - row);
        load(x_block, x + row * N * E, count, N * E);
        load(y_block, y + row * N * D, count, N * D);
        load(dy_block, dy + row * N * D, count, N * D);
        for (long i = 0; i < N * E; i++) dx_block[i] = V{};
        for (long h = 0; h < H; h++) {
            const float *own = weight + h * A * E;
            V *own_grad = dweights + h * A * E;
            for (long n = 0; n < N; n++)
                for (long a = 0; a < A; a++) {
                    const long i = (n * H + h) * A + a;
                    grad[n * A + a] = y_block[i] <= 0.0f ? V{} : dy_block[i];
                }
            project(query, x_block, own, N, E, scale);
            project(key, x_block, own + part, N, E, 1);
            project(value, x_block, own + 2 * part, N, E, 1);
            attend_backward(dquery, dkey, dvalue, grad, query, key, value, weights, inner, N);
            for (long i = 0; i < N * A; i++) dquery[i] *= scale;
            const V *grads[4] = {dquery, dkey, dvalue, grad};
            for (long i = 0; i < 4; i++)
                project_backward(dx_block, own_grad + i * part, grads[i], x_block, own + i * part,
                                 N, E);
        }
        store(dx_block, dx + row * N * E, count, N * E);
    }
    for (long i = 0; i < 4 * part; i++)
        for (long lane = 0; lane < LANES; lane++) dweight[i] += dweights[i][lane];
}
