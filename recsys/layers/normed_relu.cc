// Batch normalisation, ReLU and dropout of a hidden layer and their gradient, for
// recsys/layers/normed_relu.py.
//
// x, y, dy and dx are [rows][D]. Each function works on a slice of the batch, so that threads can
// share it; statistics of the whole batch (means, deviations, sums of gradients) are passed in or
// returned for each of the D columns. A block of rows at a time stays in the cache and is summed in
// single precision, the blocks in double.

#include <cstdint>
#include <cstring>

namespace {

constexpr long BLOCK = 32;

inline long block_size(long left) { return left < BLOCK ? left : BLOCK; }

// Whether each of `size` numbers from `first` on is kept, as `scale` or 0: random bits are a hash
// of the number's index in the batch and of the seed.
inline void keep(float *kept, uint32_t first, long size, uint32_t seed, uint32_t dropped,
                 float scale) {
    for (long i = 0; i < size; i++) {
        uint32_t bits = (first + uint32_t(i)) * 0x9E3779B9u ^ seed;
        bits = (bits ^ bits >> 16) * 0x7FEB352Du;
        bits = (bits ^ bits >> 15) * 0x846CA68Bu;
        bits ^= bits >> 16;
        kept[i] = bits < dropped ? 0.0f : scale;
    }
}

inline void normalise(const float *__restrict x, float *__restrict y, const float *__restrict mean,
                      const float *__restrict scale, const float *__restrict shift, long D) {
    for (long d = 0; d < D; d++) y[d] = (x[d] - mean[d]) * scale[d] + shift[d];
}

inline void rectify(float *y, long D) {
    for (long d = 0; d < D; d++) y[d] = 0.0f > y[d] ? 0.0f : y[d];
}

inline void thin_out(float *__restrict y, const float *__restrict kept, long D) {
    for (long d = 0; d < D; d++) y[d] *= kept[d];
}

// The gradient of what is normalised and scaled; `grown` of it came through dropout.
template <bool RELU>
inline float through(float y, float dy, float grown) {
    return dy * (RELU && y <= 0.0f ? 0.0f : grown);
}

template <bool RELU>
void add_up(const float *__restrict x, const float *__restrict y, const float *__restrict dy,
            const float *__restrict mean, const float *__restrict inverse, float *__restrict sum,
            float *__restrict product, long D, float grown) {
    for (long d = 0; d < D; d++) {
        const float own = through<RELU>(y[d], dy[d], grown);
        sum[d] += own;
        product[d] += own * ((x[d] - mean[d]) * inverse[d]);
    }
}

template <bool RELU>
void pass(const float *__restrict x, const float *__restrict y, const float *__restrict dy,
          float *__restrict dx, const float *__restrict mean, const float *__restrict inverse,
          const float *__restrict scale, const float *__restrict sum,
          const float *__restrict product, long D, float grown) {
    for (long d = 0; d < D; d++) {
        const float own = through<RELU>(y[d], dy[d], grown);
        dx[d] = scale[d] * (own - sum[d] - (x[d] - mean[d]) * inverse[d] * product[d]);
    }
}

}  // namespace

// The mean of each column, and the sum of squares around it. `work` holds 2 D floats.
extern "C" void moments(const float *x, double *mean, double *square, long rows, long D,
                        float *work) {
    float *centre = work, *around = work + D;
    for (long d = 0; d < D; d++) mean[d] = square[d] = 0;
    for (long row = 0; row < rows; row += BLOCK) {
        const long count = block_size(rows - row);
        const float *block = x + row * D;
        memset(work, 0, 2 * D * sizeof(float));
        for (long r = 0; r < count; r++)
            for (long d = 0; d < D; d++) centre[d] += block[r * D + d];
        for (long d = 0; d < D; d++) centre[d] /= float(count);
        for (long r = 0; r < count; r++)
            for (long d = 0; d < D; d++) {
                const float off = block[r * D + d] - centre[d];
                around[d] += off * off;
            }
        // Chan et al. 1979: moments of two sets of rows joined.
        const double all = double(row + count), share = double(count) / all;
        for (long d = 0; d < D; d++) {
            const double off = double(centre[d]) - mean[d];
            mean[d] += off * share;
            square[d] += double(around[d]) + off * off * double(row) * share;
        }
    }
}

// y = (x - mean) * scale + shift, its negative numbers 0 where `relu`, of which some are dropped.
// `work` holds D floats; `first` is the index of the first number in the batch.
extern "C" void apply(const float *x, float *y, const float *mean, const float *scale,
                      const float *shift, long rows, long D, long relu, long seed, long first,
                      long dropped, float grown, float *work) {
    for (long r = 0; r < rows; r++) {
        normalise(x + r * D, y + r * D, mean, scale, shift, D);
        if (relu) rectify(y + r * D, D);
        if (dropped) {
            keep(work, uint32_t(first + r * D), D, uint32_t(seed), uint32_t(dropped), grown);
            thin_out(y + r * D, work, D);
        }
    }
}

// By column, the sums of the gradients of what is normalised and scaled, and of their products
// with what is normalised. `grown` of the gradient comes through dropout. `work` holds 2 D floats.
extern "C" void sums(const float *x, const float *y, const float *dy, const float *mean,
                     const float *inverse, double *sum, double *product, long rows, long D,
                     long relu, float grown, float *work) {
    for (long d = 0; d < D; d++) sum[d] = product[d] = 0;
    for (long row = 0; row < rows; row += BLOCK) {
        const long count = block_size(rows - row);
        memset(work, 0, 2 * D * sizeof(float));
        for (long i = row * D; i < (row + count) * D; i += D)
            (relu ? add_up<true> : add_up<false>)(x + i, y + i, dy + i, mean, inverse, work,
                                                  work + D, D, grown);
        for (long d = 0; d < D; d++) {
            sum[d] += double(work[d]);
            product[d] += double(work[D + d]);
        }
    }
}

// dx = scale * (gradient - sum - normalised * product), sum and product divided by the rows.
extern "C" void gradient(const float *x, const float *y, const float *dy, float *dx,
                         const float *mean, const float *inverse, const float *scale,
                         const float *sum, const float *product, long rows, long D, long relu,
                         float grown) {
    for (long i = 0; i < rows * D; i += D)
        (relu ? pass<true> : pass<false>)(x + i, y + i, dy + i, dx + i, mean, inverse, scale, sum,
                                          product, D, grown);
}
