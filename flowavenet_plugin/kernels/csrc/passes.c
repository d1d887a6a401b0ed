// Gates, products with few columns and weight norm in few passes over memory; kernels/fused.py says what for.
#include "numbers.h"

#define CHANNELS 256

#define KIND float
#define TYPE float
#include "passes_of.h"
#define KIND bf16
#define TYPE uint16_t
#include "passes_of.h"

// rows of out = g v / |v|
void normalise(const float *restrict v, const float *restrict g, float *restrict out, long rows, long size,
               long threads) {
    FOR_ROWS(rows) {
        const float *restrict own = v + row * size;
        const float factor = g[row] / sqrtf(squares(own, size));
        float *restrict to = out + row * size;
        FOR_CHANNELS(size) to[c] = factor * own[c];
    }
}

void normalise_gradients(float *restrict grad, const float *restrict v, const float *restrict g,
                         float *restrict grad_g, long rows, long size, long threads) {
    FOR_ROWS(rows) normalise_row(grad + row * size, v + row * size, g[row], grad_g + row, size);
}

// What the calling thread of a parallel region calls later in it uses no further threads, and is told so.
void omp_set_num_threads(int threads);
void use_one_thread(void) { omp_set_num_threads(1); }

// work(0), ..., work(threads - 1), a thread each
void in_threads(void (*work)(long), long threads) {
    _Pragma("omp parallel for schedule(static, 1) num_threads(threads)")
    for (long thread = 0; thread < threads; thread++) work(thread);
}
