// Weight norm of a row, w = g v / |v|.
#ifndef FLOWAVENET_NORMS_H
#define FLOWAVENET_NORMS_H
#include "numbers.h"

static inline float squares(const float *restrict v, long size) {
    float sum = 0;
    _Pragma("omp simd reduction(+ : sum)") for (long c = 0; c < size; c++) sum += v[c] * v[c];
    return sum;
}

// The gradient of w becomes that of v; grad_g is that of g.
static inline void normalise_row(float *restrict grad, const float *restrict v, float g, float *restrict grad_g,
                                 long size) {
    float product = 0;
    _Pragma("omp simd reduction(+ : product)") for (long c = 0; c < size; c++) product += grad[c] * v[c];
    const float square = squares(v, size), norm = sqrtf(square), factor = g / norm, along = product / square;
    *grad_g = product / norm;
    FOR_CHANNELS(size) grad[c] = factor * (grad[c] - along * v[c]);
}

#endif
