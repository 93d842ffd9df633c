#pragma once
// Everything that programs need from Sennit: find_package(sennit), link sennit::sennit, include this.
#include "sennit/error.h"
#include "sennit/model.h"
#include "sennit/version.h"
