// Inner products of queries with items, looked at while they are in registers, for
// recsys/retrieval/scan.py.
//
// `folded_maxima` reads float32 items once and keeps the best product of every 16 of them;
// `pairs_above` multiplies int8 vectors and keeps the pairs that reach a threshold (VNNI).

#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;  // queries of a group, and items that share a maximum
#if defined(__AVX512F__)
constexpr int ROWS = 4, WIDE = 4;  // items, and groups of queries, whose sums fit the registers
#else
constexpr int ROWS = 4, WIDE = 1;
#endif
constexpr int AHEAD = 64;   // items
// Sums stay in registers only where loops over them are unrolled.
#define UNROLLED _Pragma("GCC unroll 16")
typedef float Vector __attribute__((vector_size(64), aligned(4)));

inline float total(Vector x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += x[i];
    return sum;
#endif
}

inline Vector larger(Vector a, Vector b) { return a > b ? a : b; }

inline float square_of(const float *x, long E) {
    Vector own = {};
    long d = 0;
    for (; d + LANES <= E; d += LANES) own += *(const Vector *)(x + d) * *(const Vector *)(x + d);
    float s = total(own);
    for (; d < E; d++) s += x[d] * x[d];
    return s;
}

// The best of R items' products with each of Q queries, q [Q][E].
template <int R, int Q>
inline void fold_alone(const float *x, const float *q, long E, float *best) {
    Vector sum[R][Q] = {};
    long d = 0;
    for (; d + LANES <= E; d += LANES)
        UNROLLED for (int r = 0; r < R; r++) {
            // Items that follow are fetched from memory meanwhile.
            __builtin_prefetch(x + (r + AHEAD) * E + d);
            UNROLLED for (int i = 0; i < Q; i++)
                sum[r][i] += *(const Vector *)(x + r * E + d) * *(const Vector *)(q + i * E + d);
        }
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int i = 0; i < Q; i++) {
            float product = total(sum[r][i]);
            for (long rest = d; rest < E; rest++) product += x[r * E + rest] * q[i * E + rest];
            best[i] = product > best[i] ? product : best[i];
        }
}

template <int Q>
inline void fold_rows(const float *x, const float *q, long E, long rows, float *out) {
    float best[Q];
    for (int i = 0; i < Q; i++) best[i] = -__builtin_inff();
    long r = 0;
    for (; r + ROWS <= rows; r += ROWS) fold_alone<ROWS, Q>(x + r * E, q, E, best);
    for (; r < rows; r++) fold_alone<1, Q>(x + r * E, q, E, best);
    std::memcpy(out, best, sizeof best);
}

// The best of `R` items' products for each of 16 * G queries, q [G][E][16].
template <int R, int G>
inline void fold(const float *x, const float *q, long E, Vector *best) {
    Vector sum[R][G] = {};
    for (long d = 0; d < E; d++)
        UNROLLED for (int r = 0; r < R; r++)
            UNROLLED for (int g = 0; g < G; g++)
                sum[r][g] += *(const Vector *)(q + (g * E + d) * LANES) * x[r * E + d];
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int g = 0; g < G; g++) best[g] = larger(best[g], sum[r][g]);
}

template <int G>
inline void fold_block(const float *x, const float *q, long E, long rows, float *out) {
    Vector best[G];
    for (int g = 0; g < G; g++) best[g] = Vector{} - __builtin_inff();
    long r = 0;
    constexpr int STEP = ROWS * WIDE / G;
    for (; r + STEP <= rows; r += STEP) fold<STEP, G>(x + r * E, q, E, best);
    for (; r < rows; r++) fold<1, G>(x + r * E, q, E, best);
    std::memcpy(out, best, sizeof best);
}

}  // namespace

// items [N][E]. queries [-groups][E] where `groups` is -1, -2 or -3, else [groups][E][16]. maxima
// [ceil(N / 16)][-groups or groups * 16]. Returns the largest square of an item's norm, 0 where
// `limit` is infinite; -1 where one is `limit` or more, or NaN.
extern "C" float folded_maxima(const float *items, int64_t N, int64_t E, const float *queries,
                               int64_t groups, float limit, float *maxima) {
    const bool look = limit < __builtin_inff();
    const long width = groups < 0 ? -groups : groups * LANES;
    float largest = 0;
    bool good = true;
    for (long block = 0; block * LANES < N; block++) {
        const long first = block * LANES, rows = N - first < LANES ? N - first : LANES;
        const float *x = items + first * E;
        for (long r = 0; look && r < rows; r++) {
            const float square = square_of(x + r * E, E);
            good &= square < limit;
            largest = square > largest ? square : largest;
        }
        float *out = maxima + block * width;
        if (groups == -1) fold_rows<1>(x, queries, E, rows, out);
        if (groups == -2) fold_rows<2>(x, queries, E, rows, out);
        if (groups == -3) fold_rows<3>(x, queries, E, rows, out);
        long g = 0;
        for (; g + WIDE <= groups; g += WIDE)
            fold_block<WIDE>(x, queries + g * E * LANES, E, rows, out + g * LANES);
        for (; g < groups; g++)
            fold_block<1>(x, queries + g * E * LANES, E, rows, out + g * LANES);
    }
    return good ? largest : -1;
}

#if defined(__AVX512VNNI__) && defined(__AVX512F__)

namespace {

// What `pairs_above` has found so far.
struct Pairs {
    uint16_t *query;
    int64_t *position;
    int64_t count, space;
};

inline void keep(Pairs &pairs, uint32_t mask, long query, long position) {
    while (mask && pairs.count < pairs.space) {
        pairs.query[pairs.count] = uint16_t(query + __builtin_ctz(mask));
        pairs.position[pairs.count++] = position;
        mask &= mask - 1;
    }
}

// Products of R items with 16 * G queries; the items' numbers are signed, those of queries had 128
// added, which `shift` takes off again.
template <int R, int G>
inline void multiply(const int8_t *x, const uint8_t *q, const int32_t *least, long E,
                     const int32_t *shift, long query, long position, Pairs &pairs) {
    __m512i sum[R][G];
    UNROLLED for (int r = 0; r < R; r++)
        UNROLLED for (int g = 0; g < G; g++) sum[r][g] = _mm512_set1_epi32(shift[r]);
    for (long d = 0; d < E; d += 4) {
        __m512i part[G];
        UNROLLED for (int g = 0; g < G; g++)
            part[g] = _mm512_loadu_si512(q + g * E * LANES + d * LANES);
        UNROLLED for (int r = 0; r < R; r++) {
            int32_t four;
            std::memcpy(&four, x + r * E + d, 4);
            const __m512i own = _mm512_set1_epi32(four);
            // Written out: the compilers' own form of it copies every sum in every step.
            UNROLLED for (int g = 0; g < G; g++)
                asm("vpdpbusd %2, %1, %0" : "+v"(sum[r][g]) : "v"(part[g]), "v"(own));
        }
    }
    UNROLLED for (int g = 0; g < G; g++) {
        const __m512i lowest = _mm512_loadu_si512(least + g * LANES);
        __m512i best = sum[0][g];
        UNROLLED for (int r = 1; r < R; r++) best = _mm512_max_epi32(best, sum[r][g]);
        if (__builtin_expect(_mm512_cmpge_epi32_mask(best, lowest) == 0, 1)) continue;
        UNROLLED for (int r = 0; r < R; r++)
            keep(pairs, _mm512_cmpge_epi32_mask(sum[r][g], lowest), query + g * LANES,
                 position + r);
    }
}

template <int R>
inline void multiply_all(const int8_t *x, const uint8_t *q, const int32_t *least, long E,
                         const int32_t *shift, long groups, long position, Pairs &pairs) {
    long g = 0;
    for (; g + WIDE <= groups; g += WIDE)
        multiply<R, WIDE>(x, q + g * E * LANES, least + g * LANES, E, shift, g * LANES, position,
                       pairs);
    for (; g < groups; g++)
        multiply<R, 1>(x, q + g * E * LANES, least + g * LANES, E, shift, g * LANES, position,
                       pairs);
}

}  // namespace

// items [rows][E] int8, E a multiple of 4; shift [rows], -128 times their sums. queries
// [groups][E / 4][16][4] uint8, 128 more than they are. least [groups * 16]. Appends query and
// position, from `first` on, of each pair whose product is at least the query's least; returns how
// many there are, `space` where there may be more.
extern "C" int64_t pairs_above(const int8_t *items, const int32_t *shift, int64_t rows, int64_t E,
                               const uint8_t *queries, int64_t groups, const int32_t *least,
                               int64_t first, uint16_t *query, int64_t *position, int64_t count,
                               int64_t space) {
    Pairs pairs{query, position, count, space};
    long r = 0;
    for (; r + ROWS <= rows && pairs.count < space; r += ROWS)
        multiply_all<ROWS>(items + r * E, queries, least, E, shift + r, groups, first + r, pairs);
    for (; r < rows && pairs.count < space; r++)
        multiply_all<1>(items + r * E, queries, least, E, shift + r, groups, first + r, pairs);
    return pairs.count;
}

#endif
