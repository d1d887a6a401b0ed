// Products of rows with matrices in panels, and what is added to them, in one pass; kernels/products.py says what for.
#include "products.h"

#define GROUP 384  // rows at once: they, a panel and its sums lie in the cache
#define DEPTH 512  // values of four bytes of a row at once

static _Thread_local float sums[GROUP * PANEL];

#define KIND float
#define TYPE float
#include "products_of.h"
#define KIND bf16
#define TYPE uint16_t
#include "products_of.h"

// Columns of a panel.
long panel_columns(void) { return PANEL; }
