// One step of an optimizer on the rows of a table that a batch read, for
// recsys/embeddings/row_step.py. DIM, the width of a row, is given when this is compiled.
//
// The gradients of a row's reads are added up in the order of the reads, in one block for each
// row that was read, found through `slot`: no sort, and one pass over the gradients. `slot` holds
// -1 for every row of the table between two calls.

#include <cmath>
#include <cstdint>

namespace {

enum Optimizer { SGD, ADAGRAD, ROW_WISE_ADAGRAD, ADAM, ROW_WISE_ADAM };

struct Settings {
    float learning_rate, eps, decay, clock, first, second, first_share, second_share;
};

// Adds the gradient of each read to the block of its row; returns how many rows were read.
int64_t gather(const int64_t *rows, const int64_t *bags, const float *weights, const float *grad,
               int64_t reads, int32_t *slot, int64_t *touched, float *sums) {
    int64_t count = 0;
    for (int64_t read = 0; read < reads; read++) {
        int32_t &own = slot[rows[read]];
        const float *from = grad + (bags ? bags[read] : read) * DIM;
        const float by = weights ? weights[read] : 1.0f;
        if (own < 0) {
            own = static_cast<int32_t>(count);
            touched[count++] = rows[read];
            float *to = sums + int64_t(own) * DIM;
            for (int64_t i = 0; i < DIM; i++) to[i] = by * from[i];
        } else {
            float *to = sums + int64_t(own) * DIM;
            for (int64_t i = 0; i < DIM; i++) to[i] += by * from[i];
        }
    }
    for (int64_t i = 0; i < count; i++) slot[touched[i]] = -1;
    return count;
}

inline float mean_square(const float *g) {
    float sum = 0;
    for (int64_t i = 0; i < DIM; i++) sum += g[i] * g[i];
    return sum / DIM;
}

template <Optimizer optimizer>
inline void step(float *w, const float *g, float *one, float *two, const Settings &s) {
    if (optimizer == SGD) {
        for (int64_t i = 0; i < DIM; i++) w[i] -= s.learning_rate * g[i];
    } else if (optimizer == ADAGRAD) {
        for (int64_t i = 0; i < DIM; i++) {
            one[i] += g[i] * g[i];
            w[i] -= s.learning_rate * g[i] / (std::sqrt(one[i]) + s.eps);
        }
    } else if (optimizer == ROW_WISE_ADAGRAD) {
        *one += mean_square(g);
        const float rate = s.learning_rate / (std::sqrt(*one) + s.eps);
        for (int64_t i = 0; i < DIM; i++) w[i] -= rate * g[i];
    } else if (optimizer == ADAM) {
        for (int64_t i = 0; i < DIM; i++) {
            one[i] = s.first * one[i] + (1 - s.first) * g[i];
            two[i] = s.second * two[i] + (1 - s.second) * g[i] * g[i];
            w[i] -= s.learning_rate * (one[i] / s.first_share) /
                    (std::sqrt(two[i] / s.second_share) + s.eps);
        }
    } else {
        *two = s.second * *two + (1 - s.second) * mean_square(g);
        const float rate =
            s.learning_rate / s.first_share / (std::sqrt(*two / s.second_share) + s.eps);
        for (int64_t i = 0; i < DIM; i++) {
            one[i] = s.first * one[i] + (1 - s.first) * g[i];
            w[i] -= rate * one[i];
        }
    }
}

template <Optimizer optimizer>
void steps(const int64_t *touched, int64_t count, float *sums, float *weight, float *one,
           float *two, float *last, const Settings &s) {
    const int64_t one_width = optimizer == ROW_WISE_ADAGRAD ? 1 : DIM;
    const int64_t two_width = optimizer == ROW_WISE_ADAM ? 1 : DIM;
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = touched[i];
        float *w = weight + row * DIM, *g = sums + i * DIM;
        if (s.decay) {
            const float decay = last ? s.decay * (s.clock - last[row]) : s.decay;
            if (last) last[row] = s.clock;
            for (int64_t j = 0; j < DIM; j++) g[j] += decay * w[j];
        }
        step<optimizer>(w, g, one + row * one_width, two + row * two_width, s);
    }
}

}  // namespace

// rows, bags (or none: one row a bag) and weights (or none): a read each; grad [bags][DIM];
// weight [R][DIM]; one, two: the optimizer's state; last [R] (or none: decay of one step); slot [R];
// touched [reads]; sums [reads][DIM].
extern "C" void row_step(const int64_t *rows, const int64_t *bags, const float *weights,
                         const float *grad, int64_t reads, float *weight, float *one, float *two,
                         float *last, int32_t *slot, int64_t *touched, float *sums,
                         int64_t optimizer, const float *settings) {
    const int64_t count = gather(rows, bags, weights, grad, reads, slot, touched, sums);
    const Settings s = {settings[0], settings[1], settings[2], settings[3],
                        settings[4], settings[5], settings[6], settings[7]};
    switch (optimizer) {
        case SGD: return steps<SGD>(touched, count, sums, weight, one, two, last, s);
        case ADAGRAD: return steps<ADAGRAD>(touched, count, sums, weight, one, two, last, s);
        case ROW_WISE_ADAGRAD:
            return steps<ROW_WISE_ADAGRAD>(touched, count, sums, weight, one, two, last, s);
        case ADAM: return steps<ADAM>(touched, count, sums, weight, one, two, last, s);
        default: return steps<ROW_WISE_ADAM>(touched, count, sums, weight, one, two, last, s);
    }
}
